"""docs/reproduce.md says what the published tables say, and gives commands that make takes."""

import re
from itertools import takewhile
from pathlib import Path

from eval.corruptions.table import CORRUPTIONS
from eval.tables.published import DATA, LINEAR, SPLITS, published_robustness, read_published

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/reproduce.md").read_text()
REPOSITORIES = ("youquanl/Segment-Any-Point-Cloud", "Xiangxu-0103/SuperFlow")


def words(line):
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


def rows():
    """Yield method, data set, labels and printed value of every number on the page."""
    head = []
    for line in PAGE.splitlines():
        if line.startswith("| cell |"):
            head = words(line)
        elif "| `make" in line and "$START" in line:
            cells = words(line)
            command = cells[1].strip("`").split()
            dataset = command[2].partition("=")[2]
            split = "lp" if command[1] == "probe" else command[-1].partition("=")[2]
            for method, value in list(zip(head, cells, strict=True))[2:-2]:
                yield method, dataset, split, value


def test_every_number_is_the_published_one():
    found = list(rows())
    assert len(found) == 9 * 5 + 13 * 4
    for method, dataset, split, value in found:
        names = {LINEAR} if split == "lp" else {n for n, ours in SPLITS.items() if ours == split}
        printed = {
            row.value
            for row in read_published()
            if row.dataset == DATA[dataset].name
            and row.protocol in names
            and row.method.split(" (")[0] == method
            and row.source.startswith("README")
            and any(repository in row.source for repository in REPOSITORIES[:1])
        }
        if dataset == "synth4d" and split == "10pct":  # SuperFlow's table has this cell alone
            printed = {
                row.value
                for row in read_published()
                if row.dataset == "Synth4D" and row.protocol in names and row.method == method
                and REPOSITORIES[1] in row.source
            }  # fmt: skip
        expected = f"{printed.pop():.2f}" if printed else "-"
        assert value == expected, (method, dataset, split)


def test_every_cell_of_the_papers_tables_has_its_command():
    paper = {
        (row.dataset, row.protocol)
        for row in read_published()
        if REPOSITORIES[0] in row.source
        and row.source.startswith("README")
        and row.metric == "mIoU"
    }
    paper = {(dataset, protocol) for dataset, protocol in paper if dataset != "nuScenes-C"}
    names = {ours: {n for n, split in SPLITS.items() if split == ours} for ours in SPLITS.values()}
    names["lp"] = {LINEAR}
    on_page = {
        (DATA[dataset].name, name) for _, dataset, split, _ in rows() for name in names[split]
    }
    assert paper <= on_page


def test_make_knows_every_target_and_variable_of_the_page():
    """Read from the Makefile's text; nothing is run."""
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"make ((?:[a-z-]+ )[^`#]*)", PAGE)
    assert len(commands) > 30
    for command in commands:
        target, *assignments = command.split()
        assert re.search(rf"^{target}: env", makefile, re.M), command
        names = {word.partition("=")[0] for word in assignments if re.match("[A-Z]+=", word)}
        for name in names:
            assert f"$({name})" in makefile or f"$({name}," in makefile, f"{name} in {command}"


def test_every_robustness_number_is_the_published_one():
    published = {(row.method, row.protocol, row.source): row for row in published_robustness()}
    parts = PAGE.split("| start | mCE | mRR |")[1:]
    assert len(parts) == 2
    for protocol, repository, part in zip(("few_shot", "linear"), REPOSITORIES, parts, strict=True):
        found = {
            name.removeprefix("MinkUNet34 (").removesuffix(")").replace("random", "Random"): row
            for (name, made, source), row in published.items()
            if made == protocol and repository in source and name.startswith("MinkUNet34")
        }
        kinds = [word.replace(" ", "_").replace("-", "_") for word in words(part.splitlines()[0])]
        assert kinds == list(CORRUPTIONS)
        lines = [words(line) for line in takewhile(str.strip, part.splitlines()[2:])]
        assert len(lines) == (4 if protocol == "few_shot" else 3)
        for name, mce, mrr, *values in lines:
            assert float(mce.split()[0]) == found[name].mce
            assert float(mrr.split()[0]) == found[name].mrr
            assert list(map(float, values)) == [found[name].miou[kind] for kind in kinds]


def test_the_commands_run_on_a_gpu_and_every_data_set_has_its_variable():
    assert "export DEVICE=cuda" in PAGE
    for dataset in {"nuscenes_c", *DATA}:
        assert f"{dataset.upper()}_ROOT" in PAGE
    pretrainings = [line for line in PAGE.splitlines() if "make pretrain DATASET" in line]
    assert len(pretrainings) == 8 and all("--workers" in line for line in pretrainings)

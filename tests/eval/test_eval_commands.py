"""`python -m eval probe | fewshot | report` as a user runs them, on the tiny city."""

import json
import shutil

import pytest
import torch

from eval.__main__ import main
from tests.eval.test_report import Page
from tests.eval.test_results import FIELDS, read_strictly
from tests.train.small_runs import FOLDER, paths_of, small_recipe
from train.checkpoint import load_checkpoint, save_checkpoint
from train.trainer import Machine, pretrain

RUN = f"seal_small-{FOLDER}-oracle"
SHORT = ["--set", "epochs=2", "--set", "batch_size=2"]


@pytest.fixture(scope="module")
def trained(stores, tmp_path_factory):
    """A folder of runs with one short pretraining."""
    runs, threads = tmp_path_factory.mktemp("runs"), torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(runs / RUN, paths_of(stores), small_recipe("epochs=1"), Machine("native"))
    torch.set_num_threads(threads)
    return runs


@pytest.fixture
def runs(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


@pytest.fixture
def evaluate(here, stores, runs):
    """Return a function that runs a command of stage three on these runs."""

    def run(command, *more):
        words = ["--stores", stores, "--runs", runs, "--engine", "native"]
        if command != "report":
            words += ["--source", "oracle", "--recipe", "seal_small"]
        return here(main, command, *words, *more)

    return run


def test_probe_fewshot_and_report(evaluate, runs):
    done = evaluate("probe", "--seeds", "0,1", *SHORT, "--set", "feature_passes=1")
    assert done.code == 0, done.err
    first, path = done.out.splitlines()
    assert first.startswith("linear on synthetic train, from seal_small/oracle: mIoU ")
    assert " +- " in first and path == str(runs / RUN / "results" / "linear-synthetic-train.json")
    result = read_strictly(runs / RUN / "results" / "linear-synthetic-train.json")
    for name, kind in FIELDS.items():
        assert isinstance(result[name], kind), name
    assert (result["seeds"], len(result["miou"]), result["init_epochs"]) == ([0, 1], 2, 1)
    assert (result["num_train"], result["num_val"], result["place"]) == (4, 4, FOLDER)
    assert len(result["per_class_iou"][0]) == len(result["classes"]) == 16
    assert result["per_class_iou"][-1].count(None) == result["num_absent"]
    assert result["config"]["feature_passes"] == 1

    for split in ("1pct", "half"):
        done = evaluate("fewshot", "--split", split, *SHORT)
        assert done.code == 0, done.err
    assert done.out.startswith("few_shot on synthetic half, from seal_small/oracle: mIoU ")
    done = evaluate("probe", "--init", "random", *SHORT)
    assert done.code == 0, done.err
    results = sorted(p.relative_to(runs).as_posix() for p in runs.glob("*/results/*.json"))
    assert results == [
        f"random-seal_small-{FOLDER}/results/linear-synthetic-train.json",
        f"{RUN}/results/few_shot-synthetic-1pct.json",
        f"{RUN}/results/few_shot-synthetic-half.json",
        f"{RUN}/results/linear-synthetic-train.json",
    ]

    done = evaluate("report", "--frames", "1")
    assert done.code == 0, done.err
    assert done.out.strip() == str((runs / "report.html").resolve())
    text = (runs / "report.html").read_text()
    page = Page(text)
    assert sum(row[0] in ("linear", "few_shot") for row in page.rows) == 4
    assert len(page.images) == 1 + 4 + 4  # curves, a scene and a matrix for each result
    assert "http" not in text.replace("https", "http")


def test_the_same_probe_twice_gives_the_same_file(evaluate, runs):
    path = runs / RUN / "results" / "linear-synthetic-half.json"
    found = []
    for _ in range(2):
        assert evaluate("probe", "--split", "half", *SHORT).code == 0
        found.append(path.read_bytes())
    assert found[0] == found[1]


def test_another_checkpoint_needs_a_run_of_its_own(evaluate, runs):
    path = shutil.copy(runs / RUN / "checkpoint.pt", runs.parent / "other.pt")
    assert "must come with --run NAME" in evaluate("probe", "--checkpoint", path).error()
    mixed = evaluate("probe", "--checkpoint", path, "--run", "x", "--init", "random")
    assert "without --init random" in mixed.error()
    done = evaluate("probe", "--checkpoint", path, "--run", "x", "--split", "1pct", *SHORT)
    assert done.code == 0, done.err
    result = json.loads((runs / "x" / "results" / "linear-synthetic-1pct.json").read_text())
    assert result["init"] == "seal_small/oracle"


@pytest.mark.parametrize(
    ("command", "more", "expected"),
    [
        ("probe", ["--run", "nowhere"], "checkpoint must exist, got nothing; run 'make pretrain'"),
        ("probe", ["--recipe", "slidr"], "run 'make pretrain' first"),
        ("probe", ["--init", "random", "--recipe", "seel"], "did you mean 'seal'"),
        ("probe", ["--split", "trian"], "did you mean 'train'"),
        ("fewshot", ["--set", "epoch=3"], "did you mean 'epochs'"),
        ("fewshot", ["--set", "epochs=0"], "epochs: must be at least 1"),
        ("probe", ["--seeds", "a"], "--seeds: must be numbers"),
        ("probe", ["--dataset", "waymo"], "make superpixels DATASET=waymo"),
        ("report", ["--runs", "none"], "must hold results, got none; run 'make probe' first"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_clear_line(evaluate, runs, command, more, expected):
    before = sorted(runs.rglob("*"))
    done = evaluate(command, *more)
    assert done.code == 2
    assert expected in done.error()
    assert sorted(runs.rglob("*")) == before


def test_checkpoints_that_do_not_fit_get_one_clear_line(evaluate, runs):
    path = runs / RUN / "checkpoint.pt"
    content = load_checkpoint(path)
    content.pop("format")
    save_checkpoint(path, {**content, "network": {"w": torch.zeros(1)}})
    assert "must fit this network, got one with" in evaluate("probe", *SHORT).error()
    changed = {**content["facts"]["recipe"], "network": {"width": 3}}
    save_checkpoint(path, {**content, "facts": {**content["facts"], "recipe": changed}})
    assert "settings that this code knows" in evaluate("probe", *SHORT).error()
    save_checkpoint(path, {"network": content["network"], "network_settings": []})
    assert "must hold network, facts, next_epoch" in evaluate("probe", *SHORT).error()
    path.write_bytes(b"no checkpoint")
    assert "must be a Selkie checkpoint" in evaluate("probe", *SHORT).error()
    assert not (runs / RUN / "results").exists()


def test_an_empty_split_names_the_smallest_usable(evaluate, stores, runs, tmp_path):
    from tests.train.test_stores import change_index

    mine = shutil.copytree(stores, tmp_path / "mine")
    change_index(mine / FOLDER, "splits", lambda values: [v & ~2 for v in values])
    done = evaluate("probe", "--stores", mine, *SHORT)
    assert "split 'val' must hold frames, got none; the smallest usable one is" in done.error()


def test_help_as_a_user_sees_it(command):
    done = command("eval", "probe", "--help")
    assert done.code == 0, done.err
    for word in ("--split", "--seeds", "--init", "Linear probe"):
        assert word in done.out
    for name in ("probe", "fewshot", "report"):
        assert len(main.commands[name].help) > 20
        for option in main.commands[name].params:
            assert option.help, f"{name} {option.name}"

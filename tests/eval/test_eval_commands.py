"""`python -m eval probe | fewshot | report` as a user runs them, on the tiny city."""

import json
import math
import re
import shutil

import click
import numpy as np
import pytest
import torch

from eval.__main__ import main
from tests.eval.test_report import Page
from tests.eval.test_results import FIELDS, read_strictly
from tests.train.small_runs import FOLDER, paths_of, small_recipe
from train.checkpoint import load_checkpoint, save_checkpoint
from train.stores import Stores
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
    done = evaluate("probe", "--init", "teacher", *SHORT)
    assert done.code == 0, done.err
    assert "from seal_small/teacher: mIoU " in done.out and "% over points a camera" in done.out
    results = sorted(p.relative_to(runs).as_posix() for p in runs.glob("*/results/*.json"))
    assert results == [
        f"random-seal_small-{FOLDER}/results/linear-synthetic-train.json",
        f"{RUN}/results/few_shot-synthetic-1pct.json",
        f"{RUN}/results/few_shot-synthetic-half.json",
        f"{RUN}/results/linear-synthetic-train.json",
        f"teacher-seal_small-{FOLDER}/results/linear-synthetic-train.json",
    ]

    done = evaluate("report", "--frames", "1")
    assert done.code == 0, done.err
    assert done.out.strip() == str((runs / "report.html").resolve())
    text = (runs / "report.html").read_text()
    page = Page(text)
    assert sum(row[0] in ("linear", "few_shot") for row in page.rows) == 5
    # few-shot curve, bars of four columns, curves; sources, similarity, a scene for each network;
    # a matrix for each result
    assert len(page.images) == (1 + 4 + 1) + (1 + 1 + 4) + 5
    assert "superpixel sources on one image" in text and "cosine similarity to a point" in text
    assert "http" not in text.replace("https", "http")
    assert len(text) < 15_000_000


def test_robustness_view_predict_and_table(evaluate, here, runs, stores, tmp_path):
    assert evaluate("probe", *SHORT, "--set", "feature_passes=1").code == 0
    done = evaluate("robustness", "--limit", "1")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("clean ") and len(lines) == 1 + 8 + 3
    assert "mCE " in lines[9] and "was measured on nuScenes-C" in lines[10]
    path = runs / RUN / "robustness" / "linear-synthetic-train.json"
    assert lines[11] == str(path)
    result = read_strictly(path)
    assert {len(values) for values in result["miou"].values()} == {3} and result["num_frames"] == 1

    done = evaluate("view", "--frames", "1", "--dataset", FOLDER)  # name and version
    assert done.code == 0, done.err
    shown = sorted(p.name for p in (runs / RUN / "view").iterdir() if p.suffix != ".rrd")
    row = shown[0].split("-")[0].removesuffix(".png")
    layers = [f"{row}-{name}.ply" for name in ("errors", "prediction", "truth")]
    assert shown == sorted([f"{row}.png", *layers])

    scans = tmp_path / "scans"
    scans.mkdir()
    points = Stores(paths_of(stores)).points(5)
    points.tofile(scans / "x.bin")
    checkpoint = runs / RUN / "results" / "linear-synthetic-train.pt"
    words = ["--checkpoint", checkpoint, "--input", scans, "--out", tmp_path / "out"]
    done = here(main, "predict", *words, "--engine", "native")
    assert done.code == 0, done.err
    assert done.out.startswith(f"1 scans, {len(points)} points in ") and "scans/s" in done.out
    assert len(np.load(tmp_path / "out" / "x.npy")) == len(points)

    done = here(main, "compare", "--runs", runs)
    assert done.code == 0, done.err
    assert "| start | linear train | run, or source |" in done.out
    done = evaluate("report", "--near", "nan", "0")
    assert (done.code, "--near: must be two finite numbers" in done.error()) == (2, True)
    done = evaluate("report", "--frames", "1", "--near", "6", "-4")
    assert done.code == 0, done.err
    text = (runs / "report.html").read_text()
    x, y = re.search(r"to a point \(.+ at (\S+), (\S+) m\)", text).groups()
    assert math.dist((float(x), float(y)), (6, -4)) < 1  # the ground is everywhere
    assert "mIoU under corruption" in text and "only compares these runs" in text


def test_corrupt_writes_what_it_names(here, stores, tmp_path):
    words = ["--stores", stores, "--kind", "fog", "--severity", "heavy", "--limit", "1"]
    done = here(main, "corrupt", "synthetic", *words, "--out", tmp_path / "c")
    assert done.code == 0, done.err
    assert done.out.strip() == str(tmp_path / "c" / "fog" / "heavy")
    assert len(list((tmp_path / "c").rglob("*.bin"))) == 2
    done = here(main, "corrupt", "synthetic", "--stores", stores, "--kind", "frog")
    assert (done.code, "did you mean 'fog'" in done.error()) == (2, True)
    done = here(main, "corrupt", "synthetic", "--stores", stores, "--severity", "strong")
    assert "choose one of: heavy, light, moderate" in done.error()


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
        ("robustness", [], "checkpoint must exist, got nothing; run 'make probe' first"),
        ("view", ["--protocol", "few_shot", "--split", "5pct"], "run 'make fewshot SPLIT=5pct'"),
        ("view", ["--protocol", "semi_supervised", "--split", "1pct"], "make semi SPLIT=1pct"),
        ("view", ["--protocol", "lineer"], "did you mean 'linear'"),
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
    for name in main.commands:
        assert len(main.commands[name].help) > 20
        for option in main.commands[name].params:
            is_argument = isinstance(option, click.Argument)  # told of in the command's own text
            assert is_argument or option.help, f"{name} {option.name}"


@pytest.mark.parametrize("name", ["weights.safetensors", "model.pt"])
def test_published_weights_are_probed_as_a_checkpoint_is(evaluate, runs, tmp_path, name):
    from train.convert import convert

    own = runs / RUN / "checkpoint.pt"
    convert(own, tmp_path / name)
    scores = []
    for path, run in ((own, "own"), (tmp_path / name, "other")):
        done = evaluate("probe", "--checkpoint", path, "--run", run, *SHORT)
        assert done.code == 0, done.err
        result = json.loads((runs / run / "results" / "linear-synthetic-train.json").read_text())
        scores.append((result["miou"], result["init"], result["init_epochs"]))
    assert scores[0] == scores[1]


def test_semi_supervised_as_a_command(evaluate, runs):
    done = evaluate("semi", *SHORT, "--set", "mean_teacher.confidence=0")
    assert done.code == 0, done.err
    path = runs / RUN / "results" / "semi_supervised-synthetic-1pct.json"
    result = json.loads(path.read_text())
    assert result["config"]["mean_teacher"]["mix_weight"] == 1.0
    assert (result["protocol"], result["num_train"]) == ("semi_supervised", 1)
    done = evaluate("semi", *SHORT, "--split", "full")
    assert "must hold frames beside the labeled ones, got none" in done.error()


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_one_line_before_anything_is_done(here, tmp_path, name):
    words = ("--stores", tmp_path / "none", "--runs", tmp_path / "runs", "--device", name)
    predict = ("predict", "--checkpoint", "x.pt", "--input", ".", "--device", name)
    for arguments in (("probe", *words), ("robustness", *words), predict):
        done = here(main, *arguments)
        assert done.code == 2
        message = done.error()
        assert f"--device: must be a device of this machine, got '{name}'" in message
    assert list(tmp_path.iterdir()) == []

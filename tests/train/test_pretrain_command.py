"""`python -m train pretrain` as a user runs it: killed, repeated, and with everything wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.train.small_runs import FOLDER, SMALL
from train.__main__ import main
from train.checkpoint import load_checkpoint

SETTINGS = [part for setting in SMALL for part in ("--set", setting)]


def arguments(stores, runs, *more):
    return ["pretrain", "--stores", stores, "--runs", runs, "--source", "oracle",
            "--recipe", "seal_small", *SETTINGS, *more]  # fmt: skip


def kill_after_the_first_epoch(words, folder):
    """Start a run, kill it (SIGKILL) once its first checkpoint stands; return the epochs done."""
    words = [sys.executable, "-m", "train", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return load_checkpoint(folder / "checkpoint.pt")["next_epoch"]


@pytest.mark.timeout(300)
def test_two_processes_agree_to_the_last_bit_even_after_a_kill(stores, tmp_path, command):
    runs, whole, cut = tmp_path / "runs", tmp_path / "runs" / "whole", tmp_path / "runs" / "cut"
    longer = ("--set", "epochs=3", "--set", "batch_size=4")
    done = command("train", *arguments(stores, runs, "--run", "whole", *longer))
    assert done.code == 0, done.err
    assert done.out == f"{whole / 'checkpoint.pt'}\n"
    assert "steps/s" in done.err
    interrupted = arguments(stores, runs, "--run", "cut", *longer)
    assert kill_after_the_first_epoch(interrupted, cut) < 3
    done = command("train", *interrupted)
    assert done.code == 0, done.err
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    contents = [load_checkpoint(folder / "checkpoint.pt") for folder in (whole, cut)]
    for name, value in contents[0]["network"].items():
        assert torch.equal(value, contents[1]["network"][name]), name
    assert contents[0]["next_epoch"] == contents[1]["next_epoch"] == 3
    assert sorted(p.name for p in cut.iterdir()) == [
        "checkpoint-1.pt", "checkpoint-2.pt", "checkpoint.pt", "config.json", "metrics.jsonl",
        "tensorboard"]  # fmt: skip


def test_the_run_is_named_after_recipe_data_and_source(stores, tmp_path, here):
    words = arguments(stores, tmp_path / "runs", "--set", "epochs=1", "--engine", "native")
    done = here(main, *words)
    assert done.code == 0, done.err
    folder = tmp_path / "runs" / f"seal_small-{FOLDER}-oracle"
    config = json.loads((folder / "config.json").read_text())
    assert (config["dataset"], config["source"], config["num_frames"]) == ("synthetic", "oracle", 4)
    assert set(config["stores"]) == {
        "frames.zarr", "superpixels-oracle.zarr", "projections.zarr", "segments.zarr"}  # fmt: skip
    again = here(main, *words)
    assert again.code == 0
    assert again.out == done.out and "steps" not in again.err
    other = here(main, *words, "--set", "optimizer.lr=0.3", "--set", "seed=4")
    assert other.code == 2
    assert "recipe.optimizer.lr: 0.05 -> 0.3; recipe.seed: 0 -> 4" in other.error()
    (folder / "checkpoint.pt").write_bytes((folder / "checkpoint.pt").read_bytes()[:-9])
    cut = here(main, *words)
    assert cut.code == 2
    assert "checkpoint.pt: must be a Selkie checkpoint" in cut.error()


def test_a_checkpoint_of_another_network_is_refused(stores, tmp_path, here):
    words = arguments(stores, tmp_path / "runs", "--set", "epochs=1", "--engine", "native")
    for run, more in (("a", []), ("b", ["--set", "network.out_channels=8"])):
        assert here(main, *words, "--run", run, *more).code == 0
    runs = tmp_path / "runs"
    shutil.copy(runs / "b" / "checkpoint.pt", runs / "a" / "checkpoint.pt")
    done = here(main, *words, "--run", "a")
    assert done.code == 2
    assert "recipe.network.out_channels: 8 -> 16" in done.error()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--recipe", "seel"], "did you mean 'seal'"),
        (["--set", "optimiser.lr=1"], "did you mean 'optimizer'"),
        (["--set", "optimizer.lr"], "must be key=value"),
        (["--set", "epochs=0"], "epochs: must be at least 1"),
        (["--recipe", "seal", "--set", "teacher.weights="], "give --set teacher.weights=FILE"),
        (["--set", "teacher.weights=gone.pt"], "gone.pt: teacher weights must exist"),
        (["--set", "split=trian"], "did you mean 'train'"),
        (["--source", "sam"], "superpixels-sam.zarr"),
        (["--segments", "segments@n5"], "segments@n5.zarr"),
        (["--dataset", "nuscenes"], "make superpixels DATASET=nuscenes"),
        (["--version", "full"], "synthetic-full"),
    ],
)
def test_bad_input_gets_one_clear_line_and_leaves_nothing(stores, tmp_path, here, more, expected):
    done = here(main, *arguments(stores, tmp_path / "runs", "--engine", "native", *more))
    assert done.code == 2
    assert expected in done.error()
    assert not (tmp_path / "runs").exists()


def test_a_published_recipe_asks_for_its_teacher(stores, tmp_path, here):
    words = ["pretrain", "--stores", stores, "--runs", tmp_path / "runs", "--source", "oracle"]
    done = here(main, *words, "--recipe", "seal", "--engine", "native")
    assert done.code == 2
    assert "teacher.weights must be a checkpoint file of a resnet50" in done.error()
    assert not (tmp_path / "runs").exists()


def test_a_wrong_choice_is_clicks_own_error(here):
    done = here(main, "pretrain", "--engine", "spconv")
    assert done.code == 2
    assert "'minkowski', 'native'" in done.err and "Traceback" not in done.err


def test_help_is_complete():
    assert main.commands["pretrain"].help
    for option in main.commands["pretrain"].params:
        assert option.help, option.name

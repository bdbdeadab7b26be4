"""A run that goes on from the middle of an epoch equals one in one go, whatever stopped it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.errors import UserError
from tests.conftest import REPOSITORY
from tests.train.small_runs import SMALL, paths_of, small_recipe
from train.checkpoint import load_checkpoint
from train.run_folder import METRICS, read_metrics
from train.stop import Stopped, stop_requests
from train.trainer import Machine, Training, pretrain

pytestmark = pytest.mark.usefixtures("one_thread")
EACH_STEP = Machine("native", save_every=1)


def recipe():
    return small_recipe("epochs=2", "batch_size=1")  # 8 steps, 4 an epoch


@pytest.fixture(scope="module")
def whole(stores, tmp_path_factory):
    """The run in one go, checkpoints at the ends of epochs only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "whole"
    pretrain(folder, paths_of(stores), recipe(), Machine("native"))
    torch.set_num_threads(before)
    return folder


def assert_same_run(one, other):
    assert (one / METRICS).read_bytes() == (other / METRICS).read_bytes()
    contents = [load_checkpoint(folder / "checkpoint.pt") for folder in (one, other)]
    for part in ("network", "head"):
        for name, value in contents[0][part].items():
            assert torch.equal(value, contents[1][part][name]), name
    momenta = [content["optimizer"]["state"] for content in contents]
    for number, state in momenta[0].items():
        assert torch.equal(state["momentum_buffer"], momenta[1][number]["momentum_buffer"])
    assert torch.equal(contents[0]["generator"], contents[1]["generator"])
    assert contents[0]["step"] == contents[1]["step"]


def cut_before(monkeypatch, number, how):
    """Have `how` happen just before a step (from 1) is taken."""
    step, taken = Training.step, []

    def cut(self, batch):
        taken.append(1)
        if len(taken) == number:
            how()
        return step(self, batch)

    monkeypatch.setattr(Training, "step", cut)


def crash():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("how", "error", "saved"), [(crash, KeyboardInterrupt, 5), (terminate, Stopped, 6)]
)
def test_a_run_cut_in_mid_epoch_equals_one_in_one_go(
    stores, tmp_path, monkeypatch, whole, how, error, saved
):
    folder, machine = tmp_path / "cut", EACH_STEP if how is crash else Machine("native")
    cut_before(monkeypatch, 6, how)
    with pytest.raises(error):
        pretrain(folder, paths_of(stores), recipe(), machine)
    assert load_checkpoint(folder / "checkpoint.pt")["step"] == saved
    monkeypatch.undo()
    torch.manual_seed(77)  # nothing may hang on torch's own generator
    pretrain(folder, paths_of(stores), recipe(), machine)
    assert_same_run(whole, folder)


def test_the_last_three_are_kept_and_a_truncated_one_is_named(stores, tmp_path, whole, capfd):
    folder = tmp_path / "run"
    pretrain(folder, paths_of(stores), recipe(), EACH_STEP)
    names = [f"checkpoint{n}.pt" for n in ("", "-1", "-2")]
    assert sorted(p.name for p in folder.glob("*.pt")) == sorted(names)
    assert [load_checkpoint(folder / name)["step"] for name in names] == [8, 7, 6]
    assert not list(folder.glob(".*"))
    for name in names[:2]:
        (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    (folder / ".checkpoint.pt.x.partial").write_bytes(b"what a kill leaves")
    capfd.readouterr()
    pretrain(folder, paths_of(stores), recipe(), EACH_STEP)
    error = capfd.readouterr().err
    assert "checkpoint.pt: must be a Selkie checkpoint" in error
    assert "checkpoint-2.pt: going on from this one instead" in error
    assert_same_run(whole, folder)
    assert not list(folder.glob(".*"))
    for path in folder.glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="checkpoint.pt: must be a Selkie checkpoint"):
        pretrain(folder, paths_of(stores), recipe(), EACH_STEP)


def test_a_loss_that_is_not_finite_leaves_the_frames_behind(stores, tmp_path, monkeypatch):
    folder, rows = tmp_path / "run", []
    step = Training.step

    def spoiled(self, batch):
        rows.append(batch.rows[0][1])
        if len(rows) == 3:
            with torch.no_grad():
                self.network.final.kernel.fill_(float("nan"))
        return step(self, batch)

    monkeypatch.setattr(Training, "step", spoiled)
    with pytest.raises(UserError, match="the loss must be finite, got nan"):
        pretrain(folder, paths_of(stores), recipe(), Machine("native"))
    found = json.loads((folder / "not_finite-0.json").read_text())
    assert found["step"] == 2 and found["epoch"] == 0
    assert [[f["frame"] for f in frames] for frames in (found["frames"], *found["before"])] == [
        [rows[2]],
        [rows[1]],
    ]
    assert found["frames"][0]["dataset"] == "synthetic-tiny"
    assert len(read_metrics(folder)) == 2
    assert not (folder / "checkpoint.pt").exists()


def test_waiting_and_memory_go_to_tensorboard_alone(whole):
    """metrics.jsonl holds what is the same in every run."""
    events = EventAccumulator(str(whole / "tensorboard"))
    events.Reload()
    waiting = [event.value for event in events.Scalars("time/waiting_for_data")]
    assert len(waiting) == 8 and all(0 < share < 1 for share in waiting)
    assert all(event.value > 50 for event in events.Scalars("memory/peak_mb"))
    assert all(event.value > 0 for event in events.Scalars("time/step_s"))
    assert not {"waiting", "step_s", "peak_mb"} & set(read_metrics(whole)[0])


def test_samples_without_a_pair_are_counted_and_the_run_goes_on(stores, tmp_path, monkeypatch):
    from train.stores import Stores

    whole_sample, none = Stores.paired_sample, np.zeros(0, np.int64)
    columns = ("pair_point", "pair_image", "pair_row", "pair_col")

    def blind(self, row, stages):
        sample = whole_sample(self, row, stages)
        return replace(sample, **dict.fromkeys(columns, none)) if row % 2 else sample

    monkeypatch.setattr(Stores, "paired_sample", blind)
    pretrain(tmp_path / "run", paths_of(stores), replace(recipe(), epochs=1), Machine("native"))
    lines = read_metrics(tmp_path / "run")
    without = [line for line in lines if "unpaired" in line]
    assert 0 < len(without) < len(lines) == 4
    assert all(("superpixel_nce" in line) != ("unpaired" in line) for line in lines)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("num_workers", -1, "--workers: must be at least 0, got -1"),
        ("save_every", 0, "--save-every: must be at least 1, got 0"),
        ("knn_every", -1, "--knn-every: must be at least 0, got -1"),
    ],
)
def test_counts_that_make_no_sense_are_refused(field, value, expected):
    with pytest.raises(UserError, match=expected):
        Machine("native", **{field: value})


def test_the_old_handler_comes_back():
    handler = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        assert not stop()
        terminate()
        assert stop()
    assert signal.getsignal(signal.SIGTERM) == handler


def processes_with(mark):
    """Return the processes that have this variable."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_text().split("\x00"):
                found.append(entry.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_steps_equal_ten_a_kill_and_ten_more_with_workers(stores, tmp_path):
    """As a user runs it: SIGKILL in the middle of the third of five epochs, two workers."""
    runs = tmp_path / "runs"
    settings = [*SMALL, "epochs=5", "batch_size=1"]
    words = [sys.executable, "-m", "train", "pretrain", "--stores", str(stores),
             "--runs", str(runs), "--source", "oracle", "--recipe", "seal_small", "--workers", "2",
             *(part for setting in settings for part in ("--set", setting))]  # fmt: skip
    mark = f"MARK={runs}"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MARK": str(runs)}

    def start(run, *more):
        return subprocess.Popen([*words, "--run", run, *more], env=environment,
                                stderr=subprocess.DEVNULL)  # fmt: skip

    assert start("whole").wait() == 0
    process = start("cut", "--save-every", "1")
    while len(read_metrics(runs / "cut")) < 11:
        assert process.poll() is None
        time.sleep(0.002)
    assert len(processes_with(mark)) >= 4  # the trainer, its fork server, two workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(60):
        if processes_with(mark):
            time.sleep(1)
    assert not processes_with(mark)  # nobody stays behind
    assert 10 <= load_checkpoint(runs / "cut" / "checkpoint.pt")["step"] < 20
    assert start("cut", "--save-every", "1").wait() == 0
    assert len(read_metrics(runs / "cut")) == 20
    assert_same_run(runs / "whole", runs / "cut")

"""Frames that raise, hang or kill are quarantined, their neighbors are right, the rest is done."""

import numpy as np
import pytest

from pipeline.blocks import quarantined_frames
from pipeline.store import open_store
from tests.pipeline import poison

FOLDER = "synthetic-tiny"
POISON = {0: "raise", 3: "segfault", 4: "memory", 7: "hang"}  # one in each block
REASONS = {
    0: "made up for row 0",
    3: r"killed its process (SIGSEGV) (tries: 2)",
    4: "needed more memory than 0.6 GB (tries: 2)",
    7: "took longer than 6 s (tries: 2)",
}


def run_poisoned(stage_one, monkeypatch, city, folder, poisons, *arguments):
    for name, value in poison.environment(poisons, folder).items():
        monkeypatch.setenv(name, value)
    return stage_one(
        "run", "--root", city, "--stores", folder / "s", "--stage", "frames",
        "--frame-timeout", 6, "--worker-memory", 0.6, *arguments,
    )  # fmt: skip


def check_quarantine(stores, clean):
    store, clean = open_store(stores / FOLDER / "frames.zarr"), open_store(clean)
    lost = {q.row: q for block in range(4) for q in quarantined_frames(store, block)}
    assert {row: q.reason for row, q in lost.items() if row} == {
        row: reason for row, reason in REASONS.items() if row
    }
    assert REASONS[0] in lost[0].reason
    assert "made up" in lost[0].traceback
    for row in set(range(8)) - lost.keys():
        for name in store.group.array_keys():
            np.testing.assert_array_equal(store.read(name, row), clean.read(name, row))


@pytest.mark.parametrize("scheduler", ["serial", pytest.param("local:2", marks=pytest.mark.slow)])
def test_bad_frames_are_quarantined_and_stay_so(
    city, stores, stage_one, small_blocks, monkeypatch, tmp_path, scheduler
):
    arguments = (stage_one, monkeypatch, city, tmp_path, POISON)
    outcome = run_poisoned(*arguments, "--scheduler", scheduler)
    assert outcome.code == 3, outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.err.count("\nquarantined ") == 4
    check_quarantine(tmp_path / "s", stores / FOLDER / "frames.zarr")
    again = run_poisoned(*arguments)
    assert again.code == 3
    assert "4 blocks done, 0 to do" in again.err
    assert again.err.count("\nquarantined ") == 4
    mended = run_poisoned(stage_one, monkeypatch, city, tmp_path, {}, "--retry-quarantined")
    assert mended.code == 0, mended.err
    assert "[frames] 4 frames" in mended.err


def test_a_frame_that_kills_once_is_tried_again(
    city, stage_one, small_blocks, monkeypatch, tmp_path
):
    outcome = run_poisoned(stage_one, monkeypatch, city, tmp_path, {1: "once"}, "--limit", 2)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "1").exists()
    assert open_store(tmp_path / "s" / FOLDER / "frames.zarr").read("num_points", 1) > 0


def test_no_retries_means_none(city, stage_one, small_blocks, monkeypatch, tmp_path):
    arguments = ("--limit", 2, "--retries", 0)
    outcome = run_poisoned(stage_one, monkeypatch, city, tmp_path, {1: "once"}, *arguments)
    assert outcome.code == 3
    assert "killed its process (exit 9) (tries: 1)" in outcome.err


@pytest.mark.slow
def test_a_frame_that_takes_its_whole_worker_down_is_found(
    city, stores, stage_one, small_blocks, monkeypatch, tmp_path
):
    scheduler = ("--scheduler", "local:2")
    outcome = run_poisoned(stage_one, monkeypatch, city, tmp_path, {5: "worker"}, *scheduler)
    assert outcome.code == 3, outcome.err
    store = open_store(tmp_path / "s" / FOLDER / "frames.zarr")
    lost = [q for block in range(4) for q in quarantined_frames(store, block)]
    [found] = [(q.frame_id, q.reason) for q in lost]
    assert found == ("city-0002/1", "killed its whole worker, alone too")
    clean = open_store(stores / FOLDER / "frames.zarr")
    np.testing.assert_array_equal(store.read("points", 4), clean.read("points", 4))

"""Kill stage one at random moments: what stands afterwards is right, what was done stays done."""

import os
import shutil
import signal
import time

import numpy as np
import pytest

from tests.pipeline.commands import (
    assert_equal,
    content,
    finish,
    markers,
    start,
    wait_for_markers,
)

ALL = ("frames", "superpixels", "projections", "segments")


def kill_and_rerun(city, tmp_path, rounds, seed, stages):
    whole = tmp_path / "whole"
    finish(start(city, whole, stages=stages))
    expected, num_blocks = content(whole), len(markers(whole))
    rng = np.random.default_rng(seed)
    stores, interrupted = tmp_path / "killed", 0
    for _ in range(rounds):
        done_before = markers(stores)
        process = start(city, stores, stages=stages)
        wait_for_markers(stores, rng.integers(len(done_before), num_blocks), process)
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)  # the client alone: its worker must go by itself
            interrupted += 1
        process.communicate()
        done_after = markers(stores)
        assert done_before.items() <= done_after.items(), "a done block was done again"
        if len(done_after) == num_blocks:
            shutil.rmtree(stores)  # complete: start the next round from nothing
    done_before = markers(stores)
    finish(start(city, stores, stages=stages))
    assert done_before.items() <= markers(stores).items()
    assert interrupted >= rounds // 2
    assert_equal(stores, expected)
    assert not list(stores.rglob(".*")), "leftovers of killed commands"


def test_three_kills(city, tmp_path):
    kill_and_rerun(city, tmp_path, rounds=3, seed=0, stages=("frames", "projections"))


@pytest.mark.slow
def test_twenty_kills(city, tmp_path):
    kill_and_rerun(city, tmp_path, rounds=20, seed=1, stages=ALL)

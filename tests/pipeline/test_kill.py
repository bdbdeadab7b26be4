"""Kill stage one at random moments: what stands afterwards is right, what was done stays done."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline import blocks
from pipeline.store import open_store

REPOSITORY = Path(__file__).resolve().parents[2]


def start(city, stores):
    """Start all four stages with small blocks, in a process group of their own."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.pipeline.small_blocks", "run"),
            *("--root", str(city), "--stores", str(stores), "--source", "oracle"),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(city, stores):
    process = start(city, stores)
    error = process.communicate()[1].decode()
    assert process.returncode == 0, error


def content(stores):
    """Return every shard's bytes and every array's values."""
    shards, arrays = {}, {}
    for path in sorted((stores / "synthetic-tiny").glob("*.zarr")):
        store = open_store(path)
        for name in sorted(store.group.array_keys()):
            arrays[path.name, name] = np.asarray(store.array(name))
            for block in range(store.num_blocks):
                shards[path.name, name, block] = blocks.shard_path(store, name, block).read_bytes()
    return shards, arrays


def markers(stores):
    return {p: p.stat().st_mtime_ns for p in stores.glob("*/*.blocks/*.json")}


def kill_and_rerun(city, tmp_path, rounds, seed):
    whole = tmp_path / "whole"
    began = time.monotonic()
    finish(city, whole)
    seconds = time.monotonic() - began
    expected_shards, expected_arrays = content(whole)
    rng = np.random.default_rng(seed)
    stores, interrupted = tmp_path / "killed", 0
    for _ in range(rounds):
        done_before = markers(stores)
        process = start(city, stores)
        time.sleep(rng.uniform(0.05, 0.9) * seconds)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)  # the client alone: its worker must go by itself
            interrupted += 1
        process.communicate()
        done_after = markers(stores)
        assert done_before.items() <= done_after.items(), "a done block was done again"
        if len(done_after) == len(markers(whole)):
            shutil.rmtree(stores)  # complete: start the next round from nothing
    done_before = markers(stores)
    finish(city, stores)
    assert done_before.items() <= markers(stores).items()
    shards, arrays = content(stores)
    assert interrupted >= rounds // 2
    assert shards.keys() == expected_shards.keys()
    assert [key for key in shards if shards[key] != expected_shards[key]] == []
    for key, values in arrays.items():
        np.testing.assert_array_equal(values, expected_arrays[key], err_msg=str(key))


def test_three_kills(city, tmp_path):
    kill_and_rerun(city, tmp_path, rounds=3, seed=0)


@pytest.mark.slow
def test_ten_kills(city, tmp_path):
    kill_and_rerun(city, tmp_path, rounds=10, seed=1)

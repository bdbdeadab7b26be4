"""Commands in processes of their own, with small blocks, for tests that kill or run several."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from pipeline.store import open_store

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = "synthetic-tiny"


def start(city, stores, *arguments, stages=("frames", "projections"), env=None):
    """Start stage one in a process group of its own and return the process."""
    chosen = [word for stage in stages for word in ("--stage", stage)]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.pipeline.small_blocks", "run"),
            *("--root", str(city), "--stores", str(stores), "--source", "oracle"),
            *chosen,
            *map(str, arguments),
        ],
        cwd=REPOSITORY,
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process, limit_s=300):
    """Wait for a process that must succeed and return what it said."""
    try:
        error = process.communicate(timeout=limit_s)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"no end in {limit_s} s: {process.communicate()[1]}") from None
    assert process.returncode == 0, error
    return error


def content(stores):
    """Return every shard's bytes and every array's values."""
    shards, arrays = {}, {}
    for path in sorted((stores / FOLDER).glob("*.zarr")):
        store = open_store(path)
        for name in sorted(store.group.array_keys()):
            arrays[path.name, name] = np.asarray(store.array(name))
            for block in range(store.num_blocks):
                shard = store.shard_paths(name, block)[0]
                shards[path.name, name, block] = shard.read_bytes()
    return shards, arrays


def assert_equal(stores, expected):
    """Compare all stores with what `content` returned of others, byte by byte."""
    shards, arrays = content(stores)
    assert shards.keys() == expected[0].keys()
    assert [key for key in shards if shards[key] != expected[0][key]] == []
    for key, values in arrays.items():
        np.testing.assert_array_equal(values, expected[1][key], err_msg=str(key))


def markers(stores):
    """Return when each marker was written."""
    return {p: p.stat().st_mtime_ns for p in stores.glob("*/*.blocks/[0-9]*.json")}


def wait_for_markers(stores, count, process, limit_s=120):
    """Wait until so many blocks are done, or the process has ended."""
    until = time.monotonic() + limit_s
    while len(markers(stores)) < count and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)

"""A block belongs to one process at a time, and to nobody once that process is killed."""

import signal
import subprocess
import sys

import pytest

from pipeline.lock import block_lock, store_lock

HOLD = """
import sys, time
from pathlib import Path
from pipeline.lock import block_lock
with block_lock(Path(sys.argv[1]), 3) as held:
    print(held, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds block 3 of a store."""
    path = tmp_path / "frames.zarr"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "True\n"
    yield path, process
    process.kill()
    process.wait()


def test_a_block_is_held_once_and_set_free_by_kill_9(holder):
    path, process = holder
    with block_lock(path, 3) as held:
        assert not held
    with block_lock(path, 4) as held:  # the neighbor is free
        assert held
    process.send_signal(signal.SIGKILL)
    process.wait()
    with block_lock(path, 3) as held:
        assert held


def test_a_store_at_work_cannot_be_claimed(holder):
    path, process = holder
    with store_lock(path) as lock:
        assert not lock.claim_blocks()
    process.kill()
    process.wait()
    with store_lock(path) as lock:
        assert lock.claim_blocks()


def test_without_locks_there_is_one_warning(tmp_path, monkeypatch, capfd):
    import errno
    import fcntl

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    for block in range(2):
        with block_lock(tmp_path / "frames.zarr", block) as held:
            assert held
    assert capfd.readouterr().err.count("this file system has no locks") == 1

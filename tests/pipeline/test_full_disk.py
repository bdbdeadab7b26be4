"""A disk that fills up in mid-run: one clear line, and a rerun after room was made."""

import os
import subprocess

import pytest

from tests.pipeline.commands import assert_equal, content, finish, markers, start


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1.2 MB; the stores of the test take 1.6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    ) if os.geteuid() == 0 else None  # fmt: skip
    if done is None or done.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_and_a_rerun_completes(city, small_disk, tmp_path):
    process = start(city, small_disk / "s")
    error = process.communicate()[1]
    assert process.returncode == 2, error
    assert "Traceback" not in error
    [line] = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "disk is full; make room" in line
    done = markers(small_disk / "s")
    assert 0 < len(done) < 8
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    finish(start(city, small_disk / "s"))
    assert done.items() <= markers(small_disk / "s").items()
    finish(start(city, tmp_path / "whole"))
    assert_equal(small_disk / "s", content(tmp_path / "whole"))

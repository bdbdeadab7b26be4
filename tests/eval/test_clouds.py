import sys

import numpy as np
import pytest

from eval.clouds import write_ply, write_rerun
from pipeline.errors import UserError
from pipeline.ply import read_ply

POINTS = np.array([[1, 2, 3, 7], [-4, 5, 0.5, 8]], np.float32)
COLORS = np.array([[255, 0, 0], [1, 2, 3]], np.uint8)


def test_a_ply_is_read_back_and_carries_its_colors(tmp_path):
    path = tmp_path / "a" / "x.ply"
    write_ply(path, POINTS, COLORS)
    assert np.array_equal(read_ply(path).points[:, :3], POINTS[:, :3])
    assert path.read_bytes().endswith(bytes([1, 2, 3]))
    with pytest.raises(ValueError, match=r"colors must be \[2, 3\], got \[1, 3\]"):
        write_ply(path, POINTS, COLORS[:1])


def test_a_recording_is_written_whole(tmp_path):
    pytest.importorskip("rerun")
    path = tmp_path / "x.rrd"
    write_rerun(path, [("scene/0", POINTS, {"truth": COLORS})] * 2)
    assert path.stat().st_size > 500
    assert [p.name for p in tmp_path.iterdir()] == ["x.rrd"]


def test_without_rerun_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(
        UserError, match="'rerun-sdk' is not installed; run 'pip install rerun-sdk'"
    ):
        write_rerun(tmp_path / "x.rrd", [])
    assert not list(tmp_path.iterdir())

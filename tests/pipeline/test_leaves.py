import io
import sys

import numpy as np
import pytest

from pipeline import errors, files, progress
from pipeline.tables import Table


def test_unknown_name_lists_the_nearest_and_all():
    error = errors.unknown_name("loss", "ppk", ["ppkt", "seal"])
    assert str(error) == "loss: unknown name 'ppk'; did you mean 'ppkt'? choose one of: ppkt, seal"


def test_table_says_what_to_install_and_hurts_nobody_else():
    table = Table(
        "thing",
        {"good": "json", "lacking": "no_such_package_at_all"},
        install={"lacking": "run 'pip install it'"},
    )
    assert table.load("good").dumps([1]) == "[1]"
    with pytest.raises(errors.UserError, match="thing 'lacking': package 'no_such.*pip install it"):
        table.load("lacking")
    assert table.problem("good") is None
    with pytest.raises(errors.UserError, match="choose one of: good, lacking"):
        table.load("bad")


def test_atomic_write_leaves_the_old_file_where_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file"
    files.write_atomically(path, b"old")
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_sha256_of_an_array_is_of_its_bytes():
    array = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert files.sha256_array(array.T) == files.sha256(array.T.tobytes())
    assert files.sha256_array(np.zeros((0, 3))) == files.sha256(b"")


def test_progress_has_rate_and_time_left(monkeypatch):
    now = iter([0.0, 10.0, 10.0, 10.0, 10.0, 20.0])
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    bar = progress.Progress("frames", 30, interval_s=5, clock=lambda: next(now))
    bar.advance(10)
    assert "[frames] 10/30 frames, 1 frames/s, 0:00:20 left" in out.getvalue()

"""A frame that kills its worker or hangs is quarantined; the rest goes on."""

import pytest

from pipeline.blocks import quarantined_frames
from pipeline.store import open_store


@pytest.mark.slow
def test_frames_that_kill_or_hang_are_quarantined_and_the_rest_is_done(city, command, tmp_path):
    arguments = ["--root", city, "--stores", tmp_path, "--stage", "frames", "--timeout", "4"]
    outcome = command("tests.pipeline.poison", "run", *arguments)
    assert outcome.code == 3, outcome.err
    assert "Traceback" not in outcome.err
    store = open_store(tmp_path / "synthetic-tiny" / "frames.zarr")
    killed, hung = quarantined_frames(store, 0)
    assert (killed.row, hung.row) == (2, 5)
    assert "killed its process (exit 9), twice" in killed.reason
    assert "took longer than 4 s, twice" in hung.reason
    assert store.read("num_points", 3) > 0

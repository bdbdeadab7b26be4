"""Several commands on one store at once: they share the work and every byte is right."""

import pytest

from pipeline.store import open_store
from tests.pipeline.commands import FOLDER, assert_equal, content, finish, markers, start


def test_two_clients_share_one_store(city, tmp_path):
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    finish(start(city, whole))
    both = [start(city, shared) for _ in range(2)]
    said = [finish(process) for process in both]
    assert_equal(shared, content(whole))
    frames = sum(
        int(line.split("] ")[1].split()[0])
        for text in said
        for line in text.splitlines()
        if line.startswith(("[frames] ", "[projections] ")) and " frames in " in line
    )
    assert frames == 16, said  # eight frames of two stages, each computed by one of the two
    assert not list(shared.rglob("*.partial"))


@pytest.mark.slow
def test_readers_see_right_values_or_none_while_two_clients_rewrite(city, tmp_path):
    """Blocks are damaged on purpose again and again, mended by two clients, and read all along."""
    stores = tmp_path / "s"
    finish(start(city, stores, stages=("frames",)))
    path = stores / FOLDER / "frames.zarr"
    expected = [open_store(path).read("points", row) for row in range(8)]
    reads = 0
    for _ in range(5):
        for marker in markers(stores):
            marker.unlink()
        both = [start(city, stores, stages=("frames",)) for _ in range(2)]
        while any(process.poll() is None for process in both):
            store = open_store(path)
            for row in range(8):
                if store.missing(row) is None:
                    assert (store.read("points", row) == expected[row]).all()
                    reads += 1
        for process in both:
            finish(process)
    assert reads > 100


@pytest.mark.slow
def test_three_shards_at_once_equal_a_serial_run(city, tmp_path):
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    stages = ("frames", "superpixels", "projections", "segments")
    finish(start(city, whole, stages=stages))
    three = [start(city, shared, "--shard", f"{i}/3", stages=stages) for i in range(3)]
    for process in three:
        finish(process)
    assert_equal(shared, content(whole))
    assert len(markers(shared)) == 16

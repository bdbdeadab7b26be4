"""Stores that are made, grow in length and width, are mended, and whose makers were killed."""

import re
from dataclasses import replace

import numpy as np
import pytest

from pipeline import blocks
from pipeline.errors import UserError
from pipeline.making import larger, mend_metadata, open_or_create, open_same, remove_store
from pipeline.schema import ArraySpec, Capacity
from pipeline.store import Header, open_store
from pipeline.verify import verify, verify_metadata

SIZE = Capacity(
    num_frames=5, num_cameras=2, num_points=10, height=6, width=5, store_height=6, store_width=5
)
HEADER = Header("made_up", "projections", 1, {}, "hash", SIZE, 2)
ATTRIBUTES = {"cameras": ["a", "b"]}


def arrays(size):
    points = size.num_points
    return [
        ArraySpec("uv", (2, points, 2), (1, points, 2), "int16", -1),
        ArraySpec("ring", (points,), (points,), "uint8", 255),
        ArraySpec("count", (), (), "int32", 0),
    ]


def make(path, size=SIZE, extra=(), **kwargs):
    header = replace(HEADER, capacity=size)
    return open_or_create(path, header, [*arrays(size), *extra], ATTRIBUTES, **kwargs)


def fill(store, block, size, num_points=None):
    """Write a block whose scans have num_points points and return its slices."""
    rng, count = np.random.default_rng(block), len(store.block_rows(block))
    slices = {s.name: np.full((count, *s.frame_shape), s.fill, s.dtype) for s in arrays(size)}
    used = num_points or size.num_points
    slices["uv"][:, :, :used] = rng.integers(0, 99, (count, 2, used, 2))
    slices["ring"][:, :used] = rng.integers(0, 32, (count, used))
    slices["count"][:] = used
    blocks.write_block(store, block, slices, f"rows{block}", (), 1.0)
    return slices


@pytest.fixture
def path(tmp_path):
    return tmp_path / "projections.zarr"


def test_a_larger_scan_widens_the_store_and_old_blocks_stay_done(path):
    narrow = make(path)
    old = [fill(narrow, block, SIZE) for block in range(2)]
    size = replace(SIZE, num_frames=8, num_points=25)  # 25 points: three shards of ten
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file() and "c" in p.parts}
    wide = make(path, size)
    assert wide.array("uv").shape == (8, 2, 25, 2)
    assert wide.array("uv").shards == (2, 2, 10, 2)
    for block in range(2):
        assert blocks.is_done(wide, block, f"rows{block}")
        for position, row in enumerate(wide.block_rows(block)):
            np.testing.assert_array_equal(wide.read("uv", row)[:, :10], old[block]["uv"][position])
            assert (wide.read("uv", row)[:, 10:] == -1).all()
            assert (wide.read("ring", row)[10:] == 255).all()
    assert {p: p.stat().st_mtime_ns for p in before} == before
    new = fill(wide, 3, size)
    assert len([p for p in wide.shard_paths("uv", 3) if p.exists()]) == 3
    fresh = open_store(path)
    np.testing.assert_array_equal(fresh.read("uv", 7), new["uv"][1])
    assert verify(path) == (3, [])
    wide.shard_paths("uv", 3)[2].unlink()
    assert "25" not in str(open_store(path).missing(6))
    assert "damaged (uv: " in open_store(path).missing(6)
    assert verify(path)[1][0].startswith("block 3: uv: ")


def test_a_command_that_opened_the_narrow_store_still_writes_whole_blocks(path):
    narrow = make(path)
    make(path, replace(SIZE, num_points=25))
    written = fill(narrow, 0, SIZE)
    store = open_store(path)
    assert blocks.is_done(store, 0, "rows0")
    np.testing.assert_array_equal(store.read("uv", 0)[:, :10], written["uv"][0])
    assert (store.read("uv", 0)[:, 10:] == -1).all()
    assert verify(path) == (1, [])
    fill(store, 0, replace(SIZE, num_points=25))  # all three shards ...
    fill(narrow, 0, SIZE)  # ... and none left of them
    assert verify(path) == (1, [])
    assert (open_store(path).read("ring", 0)[10:] == 255).all()


def test_a_smaller_index_leaves_the_width_and_a_shorter_one_is_refused(path):
    make(path, replace(SIZE, num_points=25))
    same = make(path, larger(SIZE, open_store(path).header.capacity))
    assert same.header.capacity.num_points == 25
    with pytest.raises(UserError, match="no more frames than the index's 3, got 5; run 'make ind"):
        make(path, replace(SIZE, num_frames=3))


def test_an_array_that_old_frames_did_not_need_is_added(path):
    store = make(path)
    fill(store, 0, SIZE)
    added = make(path, extra=[ArraySpec("instances", (10,), (10,), "uint16", 0)])
    assert blocks.is_done(added, 0, "rows0")
    assert not added.read("instances", 0).any()


def test_growth_that_was_cut_short_is_completed(path):
    import zarr

    store = make(path)
    written = fill(store, 0, SIZE)
    zarr.open_group(path, mode="r+")["uv"].resize((8, 2, 25, 2))  # and then it was killed
    wide = make(path, replace(SIZE, num_frames=8, num_points=25))
    assert wide.array("ring").shape == (8, 25)
    np.testing.assert_array_equal(wide.read("ring", 0)[:10], written["ring"][0])


def test_leftovers_of_a_killed_maker_are_removed(path):
    for name in (f".{path.name}.new-abc", f".{path.name}.removed-def"):
        (path.parent / name / path.name).mkdir(parents=True)
    other = path.parent / ".frames.zarr.new-abc"
    other.mkdir()
    make(path)
    assert {p.name for p in path.parent.iterdir() if p.name.startswith(".")} == {other.name}


def test_metadata_is_mended_from_its_sealed_copy(path):
    fill(make(path), 0, SIZE)
    for name in ("zarr.json", "uv/zarr.json"):
        whole = (path / name).read_text()
        for damage in (re.sub(r"\d", lambda digit: str(9 - int(digit[0])), whole), whole[:50], ""):
            (path / name).write_text(damage)
            assert verify_metadata(path) == [f"{name}: differs from its sealed copy; mended"]
            assert (path / name).read_text() == whole
    (path / "uv" / "zarr.json").unlink()
    assert mend_metadata(path) == ["uv/zarr.json"]
    seal = path.with_name("projections.blocks") / "metadata.json"
    seal.write_text(seal.read_text().replace("int16", "int15"))
    assert "the sealed copy" in verify_metadata(path)[0]
    make(path)  # writes it again
    assert verify_metadata(path) == []


def test_a_plan_touches_nothing(path):
    assert open_same(path, HEADER, ATTRIBUTES, False) is None
    make(path)
    before = {p: p.stat().st_mtime_ns for p in path.parent.rglob("*")}
    longer = replace(HEADER, capacity=replace(SIZE, num_frames=9))
    assert open_same(path, longer, ATTRIBUTES, False).num_blocks == 5
    other = replace(HEADER, stage_version=2)
    with pytest.raises(UserError, match="stage_version: 1 -> 2"):
        open_same(path, other, ATTRIBUTES, False)
    assert open_same(path, other, ATTRIBUTES, True) is None
    assert {p: p.stat().st_mtime_ns for p in path.parent.rglob("*")} == before


def test_a_store_at_work_is_not_removed(path, monkeypatch):
    from pipeline.lock import StoreLock

    make(path)
    monkeypatch.setattr(StoreLock, "claim_blocks", lambda lock: False)
    with pytest.raises(UserError, match="must be at rest to be removed"):
        remove_store(path)
    assert path.exists()

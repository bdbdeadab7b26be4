import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline import blocks
from pipeline.errors import UserError
from pipeline.making import open_or_create, remove_store
from pipeline.schema import ArraySpec, Capacity
from pipeline.store import Header, open_store
from pipeline.verify import verify

ARRAYS = [
    ArraySpec("ids", (2, 6, 5), (1, 6, 5), "uint16", 0),
    ArraySpec("count", (), (), "int32", -1),
]
SIZE = Capacity(7, 2, 100, 6, 5, 6, 5)
HEADER = Header("made_up", "superpixels", 1, {"n": 150}, "hash", SIZE, 3)


@pytest.fixture
def store(tmp_path):
    return open_or_create(tmp_path / "superpixels-slic.zarr", HEADER, ARRAYS, {"cameras": ["a"]})


def slices(store, block, seed=0):
    rng = np.random.default_rng(seed + block)
    count = len(store.block_rows(block))
    return {
        "ids": rng.integers(0, 9, (count, 2, 6, 5)).astype(np.uint16),
        "count": rng.integers(0, 9, count).astype(np.int32),
    }


def write(store, block, **kwargs):
    values = slices(store, block, **kwargs)
    blocks.write_block(store, block, values, f"rows{block}", (), 1.0)
    return values


def test_blocks_cut_the_frames_and_read_back(store):
    assert [list(store.block_rows(b)) for b in range(store.num_blocks)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]
    written = [write(store, block) for block in range(3)]
    fresh = open_store(store.path)
    for row in range(7):
        block, position = divmod(row, 3)
        np.testing.assert_array_equal(fresh.read("ids", row), written[block]["ids"][position])
        np.testing.assert_array_equal(fresh.read("ids", row, 1), written[block]["ids"][position, 1])
        assert fresh.read("count", row) == written[block]["count"][position]


def test_all_zero_blocks_are_files_too(store):
    zeros = {name: np.zeros_like(values) for name, values in slices(store, 0).items()}
    blocks.write_block(store, 0, zeros, "rows0", (), 1.0)
    assert store.shard_paths("ids", 0)[0].stat().st_size > 0
    assert blocks.is_done(store, 0, "rows0")
    store.shard_paths("ids", 0)[0].unlink()
    assert not blocks.is_done(store, 0, "rows0")  # a deleted shard would read as zeros


def test_a_frame_without_marker_or_in_quarantine_is_refused(store):
    with pytest.raises(
        UserError, match=r"frame 4 must be done, got block 1 not done; run 'make stage"
    ):
        store.read("ids", 4)
    lost = blocks.Quarantined(5, "scene/5", "broken JPEG", "Traceback ...")
    blocks.write_block(store, 1, slices(store, 1), "rows1", (lost,), 1.0)
    fresh = open_store(store.path)
    fresh.read("ids", 4)
    with pytest.raises(UserError, match=r"quarantined \(broken JPEG\).*VFM=slic ARGS=--retry"):
        fresh.read("ids", 5)
    assert blocks.quarantined_frames(fresh, 1) == [lost]


def test_done_means_marker_and_rows_and_sizes(store):
    write(store, 0)
    assert blocks.is_done(store, 0, "rows0")
    assert not blocks.is_done(store, 0, "other rows")
    assert not blocks.is_done(store, 1, "rows1")
    shard = store.shard_paths("count", 0)[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    assert not blocks.is_done(store, 0, "rows0")


def flip_bit(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["ids", "count"])
def test_verify_finds_every_flipped_bit_and_a_rewrite_repairs(store, name):
    written = [write(store, block) for block in range(3)]
    size = store.shard_paths(name, 1)[0].stat().st_size
    for position in [0, size // 3, size // 2, size - 9, size - 1]:
        flip_bit(store.shard_paths(name, 1)[0], position)
        good, bad = verify(store.path)
        assert (good, len(bad)) == (2, 1)
        assert bad[0].startswith(f"block 1: {name}")
        assert not store.marker_path(1).exists()
        blocks.write_block(store, 1, written[1], "rows1", (), 1.0)  # over a damaged shard
        assert verify(store.path) == (3, [])
    np.testing.assert_array_equal(open_store(store.path).read(name, 3), written[1][name][0])


def test_reading_a_damaged_shard_says_what_to_do(store):
    write(store, 0)
    shard = store.shard_paths("ids", 0)[0]
    flip_bit(shard, shard.stat().st_size // 3)
    with pytest.raises(UserError, match="must be readable.*make verify"):
        for row in range(3):
            open_store(store.path).read("ids", row)


def test_a_reader_never_meets_a_missing_shard(store, monkeypatch):
    """Between any two steps of a rewrite, an open reader that trusts the old marker reads right."""
    import os

    written, reader, seen = write(store, 0), open_store(store.path), []
    assert reader.missing(0) is None
    replace_file = os.replace

    def look_and_replace(source, target):
        for name in ("ids", "count"):
            seen.append(np.array_equal(reader.read(name, 0), written[name][0]))
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", look_and_replace)
    write(store, 0)
    assert len(seen) == 6  # before each of two shards and the marker
    assert all(seen)


def test_a_reader_refuses_a_shard_that_is_missing_or_cut(store):
    for damage in (lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:-1])):
        write(store, 0)
        damage(store.shard_paths("count", 0)[0])
        with pytest.raises(UserError, match=r"block 0 damaged \(count: .*run 'make stage"):
            open_store(store.path).read("ids", 0)


def test_what_a_killed_writer_left_is_removed(store):
    shard, marker = store.shard_paths("ids", 0)[0], store.marker_path(0)
    for path in (shard, marker):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.abc.partial").write_text("half")
    write(store, 0)
    assert not list(store.path.parent.rglob("*.partial"))


def test_markers_of_before_they_had_a_checksum_count(store):
    write(store, 0)
    marker = json.loads(store.marker_path(0).read_bytes())
    del marker["shapes"], marker["files"], marker["check"]
    store.marker_path(0).write_text(json.dumps(marker))
    assert blocks.is_done(store, 0, "rows0")
    assert verify(store.path) == (1, [])


def test_same_values_same_bytes(store, tmp_path):
    other = open_or_create(
        tmp_path / "b" / "superpixels-slic.zarr", HEADER, ARRAYS, {"cameras": ["a"]}
    )
    write(store, 0), write(other, 0)
    for name in ("ids", "count"):
        mine, theirs = store.shard_paths(name, 0)[0], other.shard_paths(name, 0)[0]
        assert mine.read_bytes() == theirs.read_bytes()


def test_another_config_is_refused_until_rebuild(store):
    write(store, 0)
    other = replace(HEADER, config={"n": 300})
    with pytest.raises(UserError, match=r"other settings \(config.n: 150 -> 300\).*--rebuild"):
        open_or_create(store.path, other, ARRAYS, {"cameras": ["a"]})
    with pytest.raises(UserError, match="stage_version: 1 -> 2"):
        open_or_create(store.path, replace(HEADER, stage_version=2), ARRAYS, {"cameras": ["a"]})
    with pytest.raises(UserError, match="attributes.cameras"):
        open_or_create(store.path, HEADER, ARRAYS, {"cameras": ["b"]})
    rebuilt = open_or_create(store.path, other, ARRAYS, {"cameras": ["a"]}, rebuild=True)
    assert not blocks.is_done(rebuilt, 0, "rows0")
    assert rebuilt.header.config == {"n": 300}


def test_growing_keeps_old_rows(store):
    old = [write(store, block) for block in range(3)]
    longer = replace(HEADER, capacity=replace(SIZE, num_frames=11))
    grown = open_or_create(store.path, longer, ARRAYS, {"cameras": ["a"]})
    assert grown.num_blocks == 4
    assert blocks.is_done(grown, 0, "rows0")
    assert not blocks.is_done(grown, 2, "rows2")  # block 2 had one frame, now it has three
    np.testing.assert_array_equal(grown.read("ids", 5), old[1]["ids"][2])


def test_stores_of_other_schema_or_kind_are_refused(store, tmp_path):
    with pytest.raises(UserError, match="store must exist, got nothing; run 'make stage STAGE=seg"):
        open_store(tmp_path / "segments.zarr")
    metadata = store.path / "zarr.json"
    content = json.loads(metadata.read_text())
    content["attributes"]["header"]["schema_version"] = 0
    metadata.write_text(json.dumps(content))
    with pytest.raises(UserError, match="schema version must be 1, got 0"):
        open_store(store.path)
    metadata.write_text("{")
    with pytest.raises(UserError, match="must be a readable Selkie store"):
        open_store(store.path)


def test_markers_without_a_store_count_for_nothing(store):
    write(store, 0)
    remove_store(store.path)
    store.marker_path(0).parent.mkdir()
    store.marker_path(0).write_text("{}")
    again = open_or_create(store.path, HEADER, ARRAYS, {"cameras": ["a"]})
    assert not again.marker_path(0).exists()


@pytest.mark.parametrize(
    "name, advice",
    [("superpixels-slic@few", "make stage STAGE=superpixels"), ("nothing", "give stores/")],
)
def test_a_store_that_is_not_there_names_a_command_that_exists(tmp_path, name, advice):
    with pytest.raises(UserError, match=f"store must exist, got nothing; .*{advice}"):
        open_store(tmp_path / f"{name}.zarr")

"""Plans and what `inspect` says, on the tiny city's finished stores."""

import shutil

import numpy as np
import pytest

from pipeline.blocks import is_done
from pipeline.describe import describe_store
from pipeline.errors import UserError
from pipeline.index import read_index
from pipeline.plan import (
    blocks_of,
    choose_blocks,
    count_frames,
    describe,
    estimate,
    plan,
    show_bytes,
)
from pipeline.store import open_store

FOLDER = "synthetic-tiny"


def test_bytes_are_shown_short():
    assert [show_bytes(n) for n in (0, 999, 1234, 5.6e9, 7.8e13)] == [
        "0 bytes", "999 bytes", "1.23 kB", "5.6 GB", "78 TB",
    ]  # fmt: skip


def test_whole_blocks_of_a_shard_are_counted():
    rows = np.array([0, 1, 17, 18, 40, 81])  # blocks of 8: 0, 2, 5, 10
    assert blocks_of(rows, 8) == [0, 2, 5, 10]
    assert blocks_of(rows, 8, (0, 2)) == [0, 2, 10] and blocks_of(rows, 8, (1, 2)) == [5]
    assert count_frames([0, 2, 10], 8, 82) == 8 + 8 + 2


def test_a_plan_counts_what_is_done_stale_and_new(stores, tmp_path):
    mine = shutil.copytree(stores, tmp_path / "mine") / FOLDER
    index, store = read_index(mine / "index.parquet"), open_store(mine / "frames.zarr")
    blocks = choose_blocks(store, range(8))
    work = plan(store, index, blocks)
    assert (work.tasks, work.num_done, work.num_frames) == ((), 1, 0)
    assert estimate(store, 0, 1) == "nothing to do"
    store.shard_paths("ring", 0)[0].unlink()
    work = plan(store, index, blocks)
    assert (len(work.tasks), work.num_stale, work.num_frames) == (1, 1, 8)
    assert describe(store, work).endswith(
        "0 blocks done, 1 to do (1 of them again: damaged, or other index rows)"
    )
    assert not is_done(store, 0, "other rows")


def test_hours_come_from_the_markers(stores, monkeypatch):
    store = open_store(stores / FOLDER / "frames.zarr")
    marker = {"seconds": 4.0, "bytes": {"a": 600, "b": 200}, "num_frames": 8, "quarantined": []}
    monkeypatch.setattr("pipeline.plan.read_marker", lambda path: marker)
    # half a second and 100 bytes a frame: 72,000 frames are 10 hours, 5 with two workers
    assert estimate(store, 72000, 2) == (
        "72000 frames, about 7.2 MB and 5:00:00 with 2 workers, by 8 frames measured"
    )
    monkeypatch.setattr("pipeline.plan.read_marker", lambda path: None)
    assert "no rate yet" in estimate(store, 5, 1)


def test_inspect_tells_schema_provenance_and_sizes(stores, stage_one):
    path = stores / FOLDER / "superpixels-oracle.zarr"
    lines = stage_one("inspect", path).out.splitlines()
    assert lines == describe_store(path)
    text = "\n".join(lines)
    assert "superpixels of synthetic, version 101, schema 1" in text
    assert "source=oracle" in text
    assert "1 of 1 done, 8 frames each; 0 frames quarantined" in text
    ids = next(line for line in lines if line.startswith("ids "))
    store = open_store(path)
    raw, stored = 8 * 6 * 112 * 208 * 2, store.shard_paths("ids", 0)[0].stat().st_size
    assert "uint16 [8, 6, 112, 208], chunk [1, 1, 112, 208], shard [8, 6, 112, 208], zstd" in ids
    assert f"{show_bytes(raw)} raw, {show_bytes(stored)} on disk, {raw / stored:.3g} times" in ids


def test_inspect_of_nothing_is_one_line(tmp_path):
    with pytest.raises(UserError, match="store must exist, got nothing"):
        describe_store(tmp_path / "frames.zarr")

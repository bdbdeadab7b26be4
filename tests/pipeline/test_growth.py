"""A data set that grows: old blocks stay valid, only new ones are computed, wider scans fit."""

import shutil
from dataclasses import replace

import numpy as np

from pipeline.index import build_index, write_index
from pipeline.store import open_store

FOLDER = "synthetic-tiny"


def test_new_scenes_with_larger_scans_cost_their_own_blocks_only(
    city, stage_one, small_blocks, tmp_path
):
    whole = build_index("synthetic", city, "v1.0-mini")
    first = replace(whole, table=whole.table.slice(0, 4))  # the first scene of two
    assert first.capacity().num_points < whole.capacity().num_points
    grown, fresh = tmp_path / "grown" / FOLDER, tmp_path / "fresh" / FOLDER
    write_index(grown / "index.parquet", first)
    stages = ("--stage", "frames", "--stage", "projections")
    run = ("run", "--root", city, *stages, "--stores")
    assert stage_one(*run, grown.parent).code == 0
    before = {p: p.stat().st_mtime_ns for p in grown.glob("*.blocks/[0-9]*.json")}
    assert len(before) == 4

    assert "4 frames" in stage_one(*run, grown.parent).err  # the index waits to be asked
    outcome = stage_one("index", "--root", city, "--stores", grown.parent)
    assert "8 frames, 2 scenes" in outcome.out
    plan = stage_one(*run, grown.parent, "--dry-run")
    assert plan.err.count("2 blocks done, 2 to do: 4 frames, about ") == 2
    outcome = stage_one(*run, grown.parent)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("2 blocks done, 2 to do") == 2
    assert before.items() <= {p: p.stat().st_mtime_ns for p in before}.items()
    assert stage_one("verify", "--root", city, "--stores", grown.parent).code == 0

    shutil.copytree(grown, fresh, ignore=shutil.ignore_patterns("*.zarr", "*.blocks", "*.lock"))
    assert stage_one(*run, fresh.parent).code == 0
    for name in ("frames.zarr", "projections.zarr"):
        store, expected = open_store(grown / name), open_store(fresh / name)
        assert store.attributes["scenes" if "scenes" in store.attributes else "cameras"]
        for array in store.group.array_keys():
            values = np.asarray(store.array(array))
            np.testing.assert_array_equal(values, np.asarray(expected.array(array)), err_msg=array)
    assert open_store(grown / "frames.zarr").attributes["scenes"] == whole.scenes()

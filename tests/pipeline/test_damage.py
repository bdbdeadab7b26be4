"""Flipped bits and truncations in every kind of file: found by verify, repaired by a rerun."""

import shutil

import numpy as np
import pytest

from pipeline.verify import index_damage, verify, verify_metadata
from tests.pipeline.commands import FOLDER, assert_equal, content


def flip(data, rng):
    position = rng.integers(len(data))
    return data[:position] + bytes([data[position] ^ (1 << rng.integers(8))]) + data[position + 1 :]


def cut(data, rng):
    return data[: rng.integers(len(data))]


def kinds(folder):
    """Return a file of every kind that the data set's folder holds."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock"]
    parts = {p: p.relative_to(folder).parts for p in files}
    return {"/".join("#" if x.isdecimal() else x for x in parts[p]): p for p in files}


def found(folder, path):
    """Return what verify says after one file of a folder was damaged."""
    if path.parent == folder:
        return index_damage(folder / "index.parquet")
    store = folder / f"{path.relative_to(folder).parts[0].partition('.')[0]}.zarr"
    return verify_metadata(store) or verify(store)[1]


def test_every_flip_and_cut_in_every_kind_of_file_is_found(stores, tmp_path):
    mine = shutil.copytree(stores, tmp_path / "mine") / FOLDER
    rng, every = np.random.default_rng(0), kinds(mine)
    assert {"index.parquet", "index.sha256", "frames.zarr/zarr.json"} <= every.keys()
    assert {"frames.zarr/points/zarr.json", "frames.zarr/points/c/#/#/#"} <= every.keys()
    assert {"frames.blocks/0.json", "frames.blocks/metadata.json"} <= every.keys()
    for name, path in every.items():
        whole = path.read_bytes()
        marker = mine / f"{name.partition('.')[0]}.blocks" / "0.json"
        sound = marker.read_bytes() if marker.exists() else b""
        for harm in (flip, flip, cut):
            path.write_bytes(harm(whole, rng))
            assert found(mine, path), f"{name}: {harm.__name__} passed"
            path.write_bytes(whole)
            if sound:
                marker.write_bytes(sound)
            assert not found(mine, path)


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_what_was_damaged_is_repaired(city, stores, stage_one, tmp_path, rounds):
    mine = shutil.copytree(stores, tmp_path / "mine")
    expected, rng = content(stores), np.random.default_rng(rounds)
    where = ("--root", city, "--stores", mine)
    for _ in range(rounds):
        every = kinds(mine / FOLDER)
        # metadata and its sealed copy, both at once, are beyond repair: the line says --rebuild
        kept = "metadata.json" if rng.integers(2) else "zarr.json"
        names = [name for name in sorted(every) if not name.endswith(kept)]
        for name in [*rng.choice(names, 6, replace=False), "index.parquet"]:
            harm = flip if rng.integers(2) else cut
            every[name].write_bytes(harm(every[name].read_bytes(), rng))
        outcome = stage_one("verify", *where)
        assert outcome.code == 2
        assert "Traceback" not in outcome.err
        assert "run 'make index'" in outcome.out
        assert stage_one("index", *where).code == 0
        outcome = stage_one("run", *where, "--source", "oracle")
        assert outcome.code == 0, outcome.err
        assert_equal(mine, expected)
        outcome = stage_one("verify", *where)
        assert outcome.code == 0, outcome.out

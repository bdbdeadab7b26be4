"""Masks in and out: numbers and sizes are kept, what does not fit is refused before any file."""

import shutil

import cv2
import numpy as np
import pytest

from pipeline.image import decode_ids
from pipeline.store import open_store

FOLDER = "synthetic-tiny"


@pytest.fixture
def masks(city, tmp_path):
    """PNG folder of all images: the city's truth, one file 16 bit with gaps and large numbers."""
    no_json = shutil.ignore_patterns("*.json")
    folder = shutil.copytree(city / "oracle", tmp_path / "masks", ignore=no_json)
    path = sorted(folder.iterdir())[5]
    ids = decode_ids(path).astype(np.uint16)
    ids[:20, :30], ids[40:50] = 65535, 300
    cv2.imwrite(str(path), ids)
    return folder


def test_masks_come_back_as_they_went_in(city, stage_one, masks, tmp_path):
    where = ("--root", city, "--stores", tmp_path / "s")
    outcome = stage_one("import-masks", *where, "--folder", masks, "--label", "mine")
    assert outcome.code == 0, outcome.err
    path = tmp_path / "s" / FOLDER / "superpixels-images@mine.zarr"
    assert outcome.out.strip() == str(path)
    assert str(masks) not in str(open_store(path).header)
    export = ("export-masks", *where, "--source", "images@mine", "--out")
    outcome = stage_one(*export, tmp_path / "out")
    assert outcome.out == f"{tmp_path / 'out'}: 48 files of 16 bits\n"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in masks.iterdir()}
    for exported in (tmp_path / "out").iterdir():
        ids = decode_ids(exported)
        assert ids.dtype == np.uint16
        np.testing.assert_array_equal(ids, decode_ids(masks / exported.name))

    error = stage_one(*export, tmp_path / "small", "--bits", "8").error()
    assert "ids must be at most 255 to fit 8 bits, got 65535; export with --bits 16" in error
    assert not (tmp_path / "small").exists()

    # the exported files are the same masks: nothing to do; others are refused until --rebuild
    again = ("import-masks", *where, "--label", "mine", "--folder")
    assert "1 blocks done, 0 to do" in stage_one(*again, tmp_path / "out").err
    ids = np.zeros_like(ids)
    for exported in (tmp_path / "out").iterdir():
        cv2.imwrite(str(exported), ids)
    assert "must hold the masks of" in stage_one(*again, tmp_path / "out").error()
    outcome = stage_one(*again, tmp_path / "out", "--rebuild")
    assert outcome.code == 0, outcome.err
    assert not open_store(path).read("ids_native", 0).any()


def test_eight_bits_where_they_suffice(city, stores, stage_one, tmp_path):
    where = ("--root", city, "--stores", stores, "--source", "oracle")
    outcome = stage_one(
        "export-masks", *where, "--out", tmp_path / "o", "--bits", "8", "--limit", 2
    )
    assert outcome.code == 0, outcome.err
    files = sorted((tmp_path / "o").iterdir())
    assert len(files) == 12
    for path in files:
        ids = decode_ids(path)
        assert ids.dtype == np.uint8
        np.testing.assert_array_equal(ids, decode_ids(city / "oracle" / path.name))


def test_what_is_missing_is_said_before_a_store_is_made(city, stage_one, masks, tmp_path):
    for path in sorted(masks.iterdir())[:2]:
        path.unlink()
    where = ("--root", city, "--stores", tmp_path / "s")
    error = stage_one("import-masks", *where, "--folder", masks).error()
    assert "got 46 of 48; missing are " in error
    assert not list((tmp_path / "s").rglob("*.zarr"))
    error = stage_one("import-masks", *where, "--folder", tmp_path / "nowhere").error()
    assert "must be a folder of PNG files" in error
    error = stage_one("export-masks", *where, "--source", "slic", "--out", tmp_path / "o").error()
    assert "store must exist" in error

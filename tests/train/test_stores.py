import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.index import read_index, write_index
from pipeline.manifest import load_manifest
from pipeline.marker import checked_json, read_marker
from pipeline.store import open_store
from tests.train.small_runs import FOLDER, paths_of
from train.rows import choose_labeled, choose_pairs, choose_rows
from train.stores import StorePaths, Stores

ALL = ("frames", "superpixels", "projections", "segments")


class Rows:
    """A store that holds one row in memory."""

    path = "nowhere/frames.zarr"

    def __init__(self, attributes=None, **arrays):
        self.arrays, self.attributes = arrays, attributes or {}

    def read(self, name, row, *where):
        return np.array(self.arrays[name])[where]


@pytest.fixture
def mine(stores, tmp_path):
    """A copy of the stores to break."""
    return shutil.copytree(stores / FOLDER, tmp_path / FOLDER)


def opened(folder):
    return Stores(StorePaths(folder, "oracle"))


def change_marker(folder, store, **changes):
    path = folder / f"{store}.blocks" / "0.json"
    path.write_bytes(checked_json(read_marker(path) | changes))


def change_index(folder, name, change):
    """Rewrite a column of the index; `change` gets its values as a list."""
    index = read_index(folder / "index.parquet")
    field = index.table.schema.field(name)
    values = change(index.table[name].to_pylist())
    at = index.table.schema.get_field_index(name)
    table = index.table.set_column(at, field, pa.array(values, field.type))
    write_index(folder / "index.parquet", replace(index, table=table))


def test_pairs_at_half_size_by_hand():
    # native 8 x 10 in a store of half size 4 x 5; camera 0 is absent, camera 2 padded by capacity
    jpeg = cv2.imencode(".jpg", np.zeros((4, 5, 3), np.uint8))[1].ravel()
    ids = np.arange(3 * 4 * 6, dtype=np.uint16).reshape(3, 4, 6)
    uv = np.full((3, 6, 2), -1)
    uv[1, 0], uv[1, 2] = (0, 7), (9, 0)  # column, row
    uv[2, 2] = (5, 4)
    stores = Stores(StorePaths("nowhere"))
    stores._open = {
        "frames": Rows(
            {"intensity_offset": 0.5, "intensity_max": 255.0},
            num_points=3,
            points=np.arange(24, dtype=np.float32).reshape(6, 4),
            image_size=[[0, 0], [8, 10], [8, 10]],
            jpeg_bytes=[0, len(jpeg), len(jpeg)],
            jpeg=np.stack([np.pad(jpeg, (0, 9))] * 3),
        ),
        "superpixels": Rows(ids=ids),
        "projections": Rows(uv=uv),
    }
    sample = stores.paired_sample(4, ALL[:3])
    assert [image.shape for image in sample.images] == [(4, 5, 3)] * 2
    np.testing.assert_array_equal(sample.ids[0], ids[1, :, :5])
    # floor((7.5) / 2) = 3, floor(9.5 / 2) = 4, floor(5.5 / 2) = 2, floor(4.5 / 2) = 2
    assert sample.pair_point.tolist() == [0, 2, 2]
    assert sample.pair_image.tolist() == [0, 0, 1]
    assert sample.pair_row.tolist() == [3, 0, 2]
    assert sample.pair_col.tolist() == [0, 4, 2]
    assert sample.points[:, 3].tolist() == [3.5, 7.5, 11.5]
    assert not sample.segment.any()


def test_pairs_of_the_city_are_those_of_its_stores(stores):
    folder = stores / FOLDER
    sample = opened(folder).paired_sample(1, ALL)
    frames, uv = open_store(folder / "frames.zarr"), open_store(folder / "projections.zarr")
    expected = [
        (point, camera, row, col)
        for camera, seen in enumerate(uv.read("uv", 1).tolist())
        for point, (col, row) in enumerate(seen)
        if col >= 0
    ]
    columns = (sample.pair_point, sample.pair_image, sample.pair_row, sample.pair_col)
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == expected
    assert len(expected) > 5000
    count = int(frames.read("num_points", 1))
    segments = open_store(folder / "segments.zarr").read("ids", 1)
    np.testing.assert_array_equal(sample.segment, segments[0, :count])
    ids = open_store(folder / "superpixels-oracle.zarr").read("ids", 1)
    np.testing.assert_array_equal(np.stack(sample.ids), ids)


def test_labels_are_train_ids_and_the_rest_is_ignored(stores):
    mine = opened(stores / FOLDER)
    raw = open_store(stores / FOLDER / "frames.zarr").read("labels", 2)
    table = load_manifest("synthetic").raw_to_train
    labels = mine.labels(2)
    assert labels.tolist() == [table.get(r, 255) for r in raw[: len(labels)].tolist()]
    assert len(labels) == len(mine.points(2))
    assert mine.label_map[65535] == 255


def test_a_frame_without_labels_is_one_clear_line():
    stores = Stores(StorePaths("nowhere"))
    stores._open["frames"] = Rows(has_labels=False)
    stores._open["frames"].path = "f.zarr"
    with pytest.raises(UserError, match="f.zarr: frame 3 must have labels, got none; choose"):
        stores.labels(3)


def test_every_frame_of_the_city_is_usable(stores, capsys):
    mine = Stores(paths_of(stores))
    assert choose_rows(mine, "train", ALL).tolist() == [0, 1, 2, 3]
    assert choose_pairs(mine, "", ALL, with_successors=True).tolist() == [0, 1, 2, 3]
    assert mine.has_images().all()
    assert capsys.readouterr().err == ""


def test_a_block_made_from_another_index_is_refused(mine):
    change_index(mine, "content", lambda values: [bytes(32), *values[1:]])
    with pytest.raises(UserError, match="projections.zarr: block 0 .* got one of another index"):
        choose_rows(opened(mine), "train", ("projections",))


def test_a_missing_stage_says_which_command_makes_it(mine):
    shutil.rmtree(mine / "segments.zarr")
    with pytest.raises(UserError, match="segments.zarr: .*make"):
        choose_rows(opened(mine), "train", ALL)


def test_a_missing_block_says_which_command_makes_it(mine):
    (mine / "superpixels-oracle.blocks" / "0.json").unlink()
    with pytest.raises(UserError, match="block 0 must be done, .*STAGE=superpixels .*VFM=oracle"):
        choose_rows(opened(mine), "train", ALL)


def test_an_unknown_split_names_the_nearest(stores):
    with pytest.raises(UserError, match="did you mean 'train'"):
        choose_rows(Stores(paths_of(stores)), "trian", ALL)


def test_an_empty_split_names_the_smallest_usable(mine):
    change_index(mine, "splits", lambda values: [v & ~1 for v in values])
    with pytest.raises(UserError, match=r"'train' must hold frames, .* is '10pct' \(1 frames\)"):
        choose_rows(opened(mine), "train", ALL)
    change_index(mine, "splits", lambda values: [0 for _ in values])
    with pytest.raises(UserError, match="no other split has any"):
        choose_pairs(opened(mine), "", ALL, with_successors=True)


def test_quarantined_frames_are_left_out_and_said(mine, capsys):
    change_marker(mine, "projections", quarantined=[{"row": 1, "reason": "it hangs"}])
    assert choose_rows(opened(mine), "train", ALL).tolist() == [0, 2, 3]
    said = capsys.readouterr().err
    assert said.startswith("1 of 4 frames left out: ")
    assert "it hangs" in said and "--retry-quarantined" in said


def test_nothing_but_quarantined_frames_is_an_error(mine):
    lost = [{"row": row, "reason": "it hangs"} for row in range(4)]
    change_marker(mine, "frames", quarantined=lost)
    with pytest.raises(UserError, match="a frame must be usable, got 4 that are not .*it hangs"):
        choose_rows(opened(mine), "train", ALL)


def test_frames_without_images_do_not_pretrain_but_probe(mine, capsys):
    def blind(cameras):
        return [[None] * 6, cameras[1], [None] * 6, *cameras[3:]]

    change_index(mine, "cameras", blind)
    stores = opened(mine)
    assert choose_pairs(stores, "train", ALL, with_successors=True).tolist() == [1, 3]
    assert capsys.readouterr().err == "2 of 4 frames left out: frame 0: no image\n"
    assert choose_rows(stores, "train", ("frames",)).tolist() == [0, 1, 2, 3]
    change_index(mine, "cameras", lambda cameras: [[None] * 6 for _ in cameras])
    with pytest.raises(UserError, match="'train' must have images to pretrain on, got 4 frames"):
        choose_pairs(opened(mine), "train", ALL, with_successors=True)


def test_a_frame_whose_successor_cannot_be_read_is_left_out_where_it_matters(mine, capsys):
    change_marker(mine, "frames", quarantined=[{"row": 2, "reason": "cut"}])
    stores = opened(mine)
    assert choose_pairs(stores, "train", ALL, with_successors=True).tolist() == [0, 3]
    assert choose_pairs(stores, "train", ALL, with_successors=False).tolist() == [0, 1, 3]
    assert "2 of 4 frames left out: frame 1: its successor is out" in capsys.readouterr().err


def fed(intensity, **attributes):
    """Return what networks take of raw intensities."""
    points = np.zeros((4, 4), np.float32)
    points[:, 3] = [-1, 0, 51, 510]
    stores = Stores(StorePaths("nowhere", intensity=intensity))
    stores._open = {"frames": Rows(attributes, num_points=4, points=points)}
    return stores.points(0)[:, 3]


def test_intensity_as_slidr_feeds_it_or_normalized_by_hand():
    nuscenes = {"intensity_offset": 0.0, "intensity_max": 255.0, "intensity_squash": "none"}
    assert fed("slidr", **nuscenes).tolist() == [-1, 0, 51, 510]
    np.testing.assert_allclose(fed("normalized", **nuscenes), [0, 0, 0.2, 1])
    assert fed("slidr", **nuscenes | {"intensity_offset": 1.0}).tolist() == [0, 1, 52, 511]
    waymo = nuscenes | {"intensity_squash": "tanh", "intensity_max": 1.0}
    np.testing.assert_allclose(fed("slidr", **waymo), np.tanh([-1, 0, 51, 510]))
    np.testing.assert_allclose(fed("normalized", **waymo), [0, 0, 1, 1])
    with pytest.raises(UserError, match="unknown name 'raw'; choose one of: normalized, slidr"):
        StorePaths("nowhere", intensity="raw")


def test_a_taxonomy_maps_the_same_raw_ids():
    manifest = load_manifest("synth4d")
    attributes = {
        "raw_to_train": {**manifest.raw_to_train, 3: 255},
        "taxonomies": {"native_22": {"raw_to_train": {"4": 3, "7": 6, "10": 9}}},
    }
    rows = {"num_points": 3, "labels": np.array([4, 7, 3], np.uint16), "has_labels": True}
    for name, wanted in (("", [1, 2, 255]), ("native_22", [3, 6, 255])):
        stores = Stores(StorePaths(Path("nowhere"), taxonomy=name))
        stores._open = {"frames": Rows(attributes, **rows)}
        assert stores.labels(0).tolist() == wanted
    stores = Stores(StorePaths(Path("nowhere"), taxonomy="native"))
    stores._open = {"frames": Rows(attributes, **rows)}
    with pytest.raises(
        UserError, match=r"taxonomy: unknown name 'native'; did you mean 'native_22'"
    ):
        stores.labels(0)


def test_frames_without_labels_are_left_out_and_counted(stores, capsys, monkeypatch):
    opened = Stores(paths_of(stores))
    assert opened.has_labels().all()
    assert choose_labeled(opened, "train", ("frames",)).tolist() == [0, 1, 2, 3]
    assert capsys.readouterr().err == ""
    known = np.arange(len(opened.index)) % 2 == 0
    monkeypatch.setattr(Stores, "has_labels", lambda self: known)
    assert choose_labeled(opened, "train", ("frames",)).tolist() == [0, 2]
    assert capsys.readouterr().err == "2 of 4 frames left out: no labels\n"
    monkeypatch.setattr(Stores, "has_labels", lambda self: known & False)
    with pytest.raises(UserError, match="split 'train' must have labels, got 4 frames without any"):
        choose_labeled(opened, "train", ("frames",))

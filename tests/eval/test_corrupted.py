"""Frames of the city under corruption: on the fly, and in the layout of nuScenes-C."""

import numpy as np
import pytest

from eval.corrupted import CorruptedStores, check_can_corrupt, read_scan, write_corrupted
from eval.corruptions.table import corrupt
from pipeline.errors import UserError
from pipeline.formats import read_nuscenes_labels, read_nuscenes_points
from tests.train.small_runs import paths_of
from train.stores import Stores


@pytest.fixture(scope="module")
def opened(stores):
    return Stores(paths_of(stores))


def test_a_frame_is_its_scan_corrupted_with_what_was_made_ignored(opened, stores):
    found = CorruptedStores(paths_of(stores), "crosstalk", "heavy")
    expected = corrupt(read_scan(opened, 5), "crosstalk", "heavy", opened.index.frame_ids[5])
    assert np.array_equal(found.points(5), expected.points)  # the city's offset is 0
    made = expected.labels == 43
    assert (found.labels(5)[made] == 255).all() and made.sum() > 100
    assert np.array_equal(found.labels(5)[~made], opened.labels(5)[~made])
    again = CorruptedStores(paths_of(stores), "crosstalk", "heavy")
    assert again.labels(4).tobytes() != found.labels(5).tobytes()  # in any order of frames
    assert again.points(5).tobytes() == found.points(5).tobytes()
    assert found.holds("frames", np.arange(8)) and not found.holds("projections", np.arange(8))


def test_the_layout_of_nuscenes_c(opened, tmp_path):
    folder = write_corrupted(opened, np.array([4, 6]), "beam_missing", "light", tmp_path)
    assert folder == tmp_path / "beam_missing" / "light"
    frame = opened.index.frame(6)
    name = frame.points_path.split("/")[-1]
    cloud = read_nuscenes_points(folder / "samples/LIDAR_TOP" / name)
    label_name = frame.label_path.split("/")[-1]
    labels = read_nuscenes_labels(folder / "lidarseg/v1.0-trainval" / label_name, len(cloud.points))
    expected = corrupt(read_scan(opened, 6), "beam_missing", "light", frame.frame_id)
    assert np.array_equal(cloud.points, expected.points)
    assert np.array_equal(cloud.ring, expected.ring)
    assert np.array_equal(labels, expected.labels)
    assert len(list(folder.rglob("*.bin"))) == 4


def test_a_data_set_of_other_classes_is_refused(opened, monkeypatch):
    attributes = opened.store("frames").attributes
    monkeypatch.setitem(attributes["raw_to_train"], "17", 0)
    with pytest.raises(UserError, match="raw id 17 must be car, got barrier; use nuscenes or"):
        check_can_corrupt(opened)


def test_a_label_outside_the_map_is_refused(opened, monkeypatch):
    fresh = Stores(opened.paths)
    attributes = fresh.store("frames").attributes
    raw = int(read_scan(opened, 5).labels[0])
    monkeypatch.delitem(attributes["raw_to_train"], str(raw))
    with pytest.raises(UserError, match=f"must be in the data set's map, got {raw} at"):
        fresh.labels(5)

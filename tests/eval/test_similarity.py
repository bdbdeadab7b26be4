from dataclasses import replace

import numpy as np
import pytest

from eval.similarity import choose_query, nearest_point, point_similarity, similarity_page
from tests.train.small_runs import paths_of, small_recipe
from train.stores import Stores
from train.trainer import Machine, pretrain

NATIVE = Machine("native")
POINTS = np.array([[9, 0, 0, 1], [5, 0, 0, 1], [2, 0, 0, 1], [1, 0, 0, 1]], np.float32)


def test_the_nearest_point_of_the_first_class_that_occurs_is_asked():
    classes = ["manmade", "car", "tree"]
    assert choose_query(POINTS, np.array([1, 1, 0, 255], np.uint8), classes) == 1
    assert choose_query(POINTS, np.array([2, 2, 0, 255], np.uint8), classes) == 2
    assert choose_query(POINTS, np.array([2, 2, 2, 255], np.uint8), classes) == 3


def test_a_point_can_be_chosen_by_its_place():
    points = np.array([[9, 0, 0, 1], [5, -3, 4, 1], [5, 3, 0, 1]], np.float32)
    assert nearest_point(points, (6.0, -2.0)) == 1
    assert nearest_point(points, (6.0, 2.0)) == 2


def test_a_page_shows_any_similarity():
    png = similarity_page(POINTS, np.array([-1, 0, 0.5, 1.0]), 3, "x")
    assert png.startswith(b"\x89PNG")


def test_points_are_fed_as_in_the_pretraining(stores, tmp_path, one_thread, monkeypatch):
    fed = []
    monkeypatch.setattr(
        "eval.similarity.point_outputs",
        lambda network, points, voxels: fed.append(points) or np.ones((len(points), 2)),
    )
    paths = replace(paths_of(stores), intensity="normalized")
    pretrain(tmp_path / "run", paths, small_recipe("epochs=1", name="slidr_small"), NATIVE)
    point_similarity(tmp_path / "run" / "checkpoint.pt", Stores(paths_of(stores)), 5, 40, NATIVE)
    assert np.array_equal(fed[0], Stores(paths).points(5))
    assert not np.array_equal(fed[0], Stores(paths_of(stores)).points(5))


def test_a_point_is_like_itself_and_like_its_voxel(stores, tmp_path, one_thread):
    recipe = small_recipe("epochs=1", name="slidr_small")
    pretrain(tmp_path / "run", paths_of(stores), recipe, NATIVE)
    opened, query = Stores(paths_of(stores)), 40
    found = point_similarity(tmp_path / "run" / "checkpoint.pt", opened, 5, query, NATIVE)
    points = opened.points(5)
    assert found.shape == (len(points),) and found[query] == pytest.approx(1, abs=1e-5)
    assert -1.001 < found.min() < found.max() < 1.001
    cell = np.floor(points[:, :3].astype(float) / 0.5)
    same = (cell == cell[query]).all(axis=1)
    assert found[same] == pytest.approx(1, abs=1e-5)

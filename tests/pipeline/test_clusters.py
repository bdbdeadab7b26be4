import time

import numpy as np
import pytest
import sklearn.cluster
from hdbscan import HDBSCAN
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clusters import _choose, _footprints, _label, _Tree, cluster_points

NO_THINNING_M, NO_LIMIT_M2 = 0.001, 1e9


def _blobs(seed=5):
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-30, 30, (12, 3)) * [1, 1, 0.05]
    blobs = np.concatenate([c + rng.normal(0, 0.5, (250, 3)) for c in centers])
    return np.concatenate([blobs, rng.uniform(-40, 40, (300, 3))])


def _same_cluster(labels):
    return (labels[:, None] == labels) & (labels[:, None] >= 0)


def _cluster(points, voxel_m=0.2, max_footprint_m2=15.0, min_samples=5):
    return cluster_points(points, voxel_m, 20, min_samples, max_footprint_m2)


@pytest.mark.parametrize("seed", [1, 5, 9])
def test_without_thinning_and_limit_the_choice_is_that_of_hdbscan(seed):
    points = np.unique(_blobs(seed), axis=0)
    ours = _cluster(points, NO_THINNING_M, NO_LIMIT_M2)
    peer = HDBSCAN(min_samples=5, min_cluster_size=20, approx_min_span_tree=False)
    same = _same_cluster(peer.fit_predict(points))
    assert ours.max() == peer.labels_.max() >= 8
    # the trees are built from points in another order; a tie may move a point of the rim
    assert (_same_cluster(ours) == same).mean() > 0.9999


def test_without_thinning_and_limit_it_is_scikit_learn():
    points = _blobs()
    ours = _cluster(points, NO_THINNING_M, NO_LIMIT_M2)
    # scikit-learn counts the point itself among the neighbors
    peer = sklearn.cluster.HDBSCAN(min_cluster_size=20, min_samples=6, copy=True)
    same = _same_cluster(peer.fit_predict(points))
    assert (_same_cluster(ours) == same).mean() > 0.999


def test_points_of_a_voxel_share_its_cluster():
    points = _blobs()
    cluster = _cluster(points, voxel_m=0.5)
    voxel = np.floor((points - points.min(axis=0)) / 0.5)
    _, number = np.unique(voxel, axis=0, return_inverse=True)
    lowest, highest = np.full(number.max() + 1, 10**6), np.full(number.max() + 1, -2)
    np.minimum.at(lowest, number, cluster)
    np.maximum.at(highest, number, cluster)
    assert len(lowest) < len(points)
    np.testing.assert_array_equal(lowest, highest)


def test_footprint_by_hand():
    # leaf 1: four corners of a 2 x 4 square turned by 45 degrees; leaf 2: points in a line
    corners = np.array([[1, 2], [1, -2], [-1, 2], [-1, -2]]) @ np.array([[1, 1], [-1, 1]]) / 2**0.5
    points = np.zeros((8, 3))
    points[:4, :2] = corners + 50
    points[4:, 0] = [0, 1, 2, 3]
    tree = _Tree(np.array([0, 0, 0]), np.zeros(3), np.arange(8), np.array([1] * 4 + [2] * 4))
    # corners have variances 1 and 4: 12 * sqrt(1 * 4) = 24
    footprints = _footprints(tree, points)
    np.testing.assert_allclose(footprints[1:], [24, 0], atol=1e-6)
    spread = points[:, :2] - points[:, :2].mean(axis=0)
    whole = 12 * np.sqrt(np.linalg.det(spread.T @ spread / 8))
    assert footprints[0] == pytest.approx(whole)


@settings(max_examples=30)
@given(a=st.floats(0.5, 20), b=st.floats(0.5, 20), turn_rad=st.floats(0, 6.3))
def test_footprint_of_a_full_rectangle_is_its_area(a, b, turn_rad):
    x, y = np.meshgrid((np.arange(100) + 0.5) / 100 - 0.5, (np.arange(100) + 0.5) / 100 - 0.5)
    flat = np.column_stack([x.ravel() * a, y.ravel() * b])
    cos, sin = np.cos(turn_rad), np.sin(turn_rad)
    points = np.column_stack([flat @ np.array([[cos, sin], [-sin, cos]]), np.zeros(10000)])
    tree = _Tree(np.zeros(1, int), np.zeros(1), np.arange(10000), np.zeros(10000, int))
    assert _footprints(tree, points)[0] == pytest.approx(a * b, rel=1e-3)


def test_choice_by_hand():
    # 0 -> 1, 2; 1 -> 3, 4; 2 -> 5, 6.  1 (10) beats 3 + 4 (3 + 4); 5 + 6 (6 + 2) beat 2 (7)
    tree = _Tree(
        parent=np.array([0, 0, 0, 1, 1, 2, 2]),
        stability=np.array([99.0, 10, 7, 3, 4, 6, 2]),
        point=np.array([0, 1, 2, 3, 4, 5]),
        leaf=np.array([3, 4, 1, 5, 2, 0]),
    )
    free = _choose(tree, np.ones(7, bool))
    assert np.flatnonzero(free).tolist() == [1, 3, 4, 5, 6]  # 2 and the root are not
    assert _label(tree, free).tolist() == [0, 0, 0, 1, -1, -1]
    without_1 = _choose(tree, np.arange(7) != 1)
    assert np.flatnonzero(without_1).tolist() == [3, 4, 5, 6]
    assert _label(tree, without_1).tolist() == [0, 1, -1, 2, -1, -1]
    assert not _choose(tree, np.zeros(7, bool)).any()


def test_hedges_that_touch_fall_apart_under_a_limit():
    rng = np.random.default_rng(0)
    blocks = [rng.uniform(0, 1, (2500, 3)) * [4, 3, 1] + [x, 0, 0] for x in (0, 4.35, 8.7)]
    lonely = rng.uniform(0, 1, (800, 3)) + [5, 20, 0]
    points = np.concatenate([*blocks, lonely])
    free = _cluster(points, max_footprint_m2=NO_LIMIT_M2)
    assert len(np.unique(free[:7500])) == 1  # half a street as one cluster
    limited = _cluster(points, max_footprint_m2=15.0)
    main = [np.bincount(limited[2500 * k : 2500 * (k + 1)] + 1).argmax() for k in range(3)]
    assert len(set(main)) == 3 and 0 not in main
    assert len(np.unique(limited[7500:])) == 1


@pytest.mark.parametrize("num_points", [0, 1, 19])
def test_too_few_points_are_noise(num_points):
    points = np.random.default_rng(0).uniform(0, 5, (num_points, 3))
    assert _cluster(points).tolist() == [-1] * num_points


def test_one_voxel_is_noise():
    assert (_cluster(np.full((500, 3), 3.0)) == -1).all()


@pytest.mark.slow
def test_a_hundred_thousand_voxels_are_affordable():
    rng = np.random.default_rng(0)
    points = rng.uniform(-60, 60, (130_000, 3)) * [1, 1, 0.1]
    start = time.perf_counter()
    _cluster(points)
    assert time.perf_counter() - start < 30  # 8 s on one core of two busy ones

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label as components

from pipeline import slic_clusters
from pipeline.slic_clusters import cluster, connect


def at(*places):
    """Return centers [S, 5] without a color."""
    return np.array([(*place, 0, 0, 0) for place in places], np.float32)


def slow_cluster(planes, centers, step):
    """One loop per pixel and center, float64."""
    centers = centers.astype(np.float64)
    _, height, width = planes.shape
    labels = np.zeros((height, width), np.int64)
    for round_ in range(slic_clusters.NUM_ROUNDS):
        new = labels.copy()
        for y in range(height):
            for x in range(width):
                best = np.inf
                for number, center in enumerate(centers):
                    reach = 2 * step
                    inside = (
                        int(max(center[0] - reach, 0)) <= y < int(center[0] + reach) + 1
                        and int(max(center[1] - reach, 0)) <= x < int(center[1] + reach) + 1
                    )
                    near = ((center[:2] - (y, x)) ** 2).sum() / step**2
                    distance = near + ((center[2:] - planes[:, y, x]) ** 2).sum()
                    if inside and distance < best - 1e-9:
                        best, new[y, x] = distance, number
        if round_ and (new == labels).all():
            break
        labels = new
        for number in range(len(centers)):
            mine = np.argwhere(labels == number)
            if len(mine):
                colors = planes[:, mine[:, 0], mine[:, 1]].mean(1)
                centers[number] = [*mine.mean(0), *colors]
    return labels, centers


def test_equal_to_the_slow_twin():
    rng = np.random.default_rng(3)
    planes = rng.normal(0, 0.4, (3, 14, 20)).astype(np.float32)
    planes += np.linspace(0, 3, 20, dtype=np.float32)
    centers = at(*[(y, x) for y in (3, 10) for x in (2, 7, 12, 17)])
    labels, moved = cluster(planes, centers, 6.0)
    expected, expected_centers = slow_cluster(planes, centers, 6.0)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(moved, expected_centers, atol=1e-4)


def test_two_colors_by_hand():
    planes = np.zeros((3, 4, 8), np.float32)
    planes[0, :, 5:] = 10  # far away in color: the border follows it, not the middle
    labels, centers = cluster(planes, at((1.5, 1), (1.5, 6)), 5.0)
    assert centers.tolist() == [[1.5, 2, 0, 0, 0], [1.5, 6, 10, 0, 0]]
    assert (labels == np.array([0, 0, 0, 0, 0, 1, 1, 1])).all()


def test_connect_by_hand():
    labels = np.array([[0, 0, 0, 1], [0, 2, 0, 1], [0, 0, 0, 1]], np.int32)
    # the single 2 joins the region touched last, the 1s stay
    expected = [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert connect(labels, 2, 100).tolist() == expected
    assert connect(labels, 1, 100).tolist() == [[0, 0, 0, 1], [0, 2, 0, 1], [0, 0, 0, 1]]


@given(arrays(np.int32, (7, 9), elements=st.integers(0, 3)))
def test_connected_pieces_never_mix_labels_and_ids_have_no_gaps(labels):
    found = connect(labels, 1, 1000)
    assert np.unique(found).tolist() == list(range(found.max() + 1))
    expected = components(labels, background=-1, connectivity=1)
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize("limit", [1, 5, 12])
def test_no_piece_is_larger_than_allowed(limit):
    found = connect(np.zeros((6, 6), np.int32), 1, limit)
    assert np.bincount(found.ravel()).max() <= limit

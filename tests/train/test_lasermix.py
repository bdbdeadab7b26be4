import numpy as np
import pytest

from train.lasermix import LabeledPoints, inclination_rad, mix


def scan(seed, count=200):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 4)).astype(np.float32)
    return LabeledPoints(points, rng.integers(0, 5, count).astype(np.uint8))


def rows(*scans):
    """Every point with its label, sorted: what two scans hold together."""
    joined = [np.column_stack([each.points, each.labels]) for each in scans]
    return np.array(sorted(map(tuple, np.concatenate(joined))))


def test_by_hand():
    # elevations of one: -45, 0 and 45 degrees; of the other: -45 and 45. Three bands of 30 degrees
    one = LabeledPoints(
        np.array([[1, 0, -1, 1], [1, 0, 0, 2], [0, 1, 1, 3]], np.float32),
        np.array([1, 2, 3], np.uint8),
    )
    other = LabeledPoints(
        np.array([[2, 0, -2, 4], [0, 2, 0.1, 5]], np.float32), np.array([4, 5], np.uint8)
    )
    first, second = mix(one, other, 3)
    assert first.labels.tolist() == [1, 3, 5]  # bands 0 and 2 of one, band 1 of the other
    assert second.labels.tolist() == [4, 2]
    assert first.points[:, 3].tolist() == [1, 3, 5]


def test_inclination_by_hand():
    points = np.array([[1, 0, 1, 0], [0, -2, 0, 0], [3, 4, -5, 9]], np.float32)
    np.testing.assert_allclose(np.degrees(inclination_rad(points)), [45, 0, -45])


@pytest.mark.parametrize("num_areas", [2, 3, 6])
def test_no_point_is_lost_or_doubled(num_areas):
    one, other = scan(0), scan(1, 150)
    np.testing.assert_array_equal(rows(one, other), rows(*mix(one, other, num_areas)))


def test_a_turn_about_z_changes_nothing():
    one, other = scan(0), scan(1)
    turned = one.points.copy()
    turned[:, 0], turned[:, 1] = -one.points[:, 1], one.points[:, 0]
    labels = [each.labels for each in mix(one, other, 4)]
    again = [each.labels for each in mix(LabeledPoints(turned, one.labels), other, 4)]
    for expected, found in zip(labels, again, strict=True):
        np.testing.assert_array_equal(expected, found)


def test_refuses_one_band():
    with pytest.raises(
        ValueError, match="num_areas must be at least 2, got 1; LaserMix takes more"
    ):
        mix(scan(0), scan(1), 1)

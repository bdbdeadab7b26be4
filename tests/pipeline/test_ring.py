import numpy as np
import pytest

from pipeline.ring import _count_turns, _explained_variance, derive_ring
from tests.pipeline.recordings import Kitti, recording


def _scan(elevations_deg, azimuths_deg, range_m=10.0):
    """Beam by beam, each beam once around."""
    elevation, azimuth = np.meshgrid(
        np.radians(elevations_deg), np.radians(azimuths_deg), indexing="ij"
    )
    flat = np.cos(elevation) * range_m
    points = np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation) * range_m], -1
    )
    return points.reshape(-1, 3).astype(np.float32)


AROUND = np.arange(0.5, 360, 5.0)


def test_beams_are_counted_in_file_order():
    points = _scan([2, 0, -4, -10], AROUND)
    ring = derive_ring(points)
    assert ring.dtype == np.uint8
    np.testing.assert_array_equal(ring, np.repeat([0, 1, 2, 3], len(AROUND)))


def test_gaps_without_returns_do_not_matter():
    points = _scan([2, 0, -4, -10], AROUND)
    kept = np.random.default_rng(0).random(len(points)) < 0.6
    expected = np.repeat([0, 1, 2, 3], len(AROUND))[kept]
    np.testing.assert_array_equal(derive_ring(points[kept]), expected)


def test_a_sensor_that_turns_the_other_way():
    ring = derive_ring(_scan([2, 0, -4, -10], AROUND[::-1]))
    np.testing.assert_array_equal(ring, np.repeat([0, 1, 2, 3], len(AROUND)))


def test_jitter_over_the_seam_does_not_start_a_beam():
    azimuths = np.append(AROUND, [360.4, 359.6, 359.9])  # crosses, goes back, ends before the seam
    ring = derive_ring(_scan([2, 0, -4, -10], azimuths))
    assert ring.max() == 3 + 1  # the last beam's own crossing counts once
    assert np.all(np.diff(ring.astype(int)) >= 0)
    middle = np.arange(4)[:, None] * len(azimuths) + np.arange(10, 60)
    np.testing.assert_array_equal(ring[middle], np.repeat(np.arange(4)[:, None], 50, axis=1))


@pytest.mark.parametrize(
    "points",
    [
        _scan(np.linspace(3, -24, 130), AROUND),  # more beams than 128
        _scan([0], AROUND),  # one turn says nothing
        _scan([2, 0, -4, -10], AROUND).reshape(4, -1, 3).swapaxes(0, 1).reshape(-1, 3),  # by column
        np.random.default_rng(0).permutation(_scan([2, 0, -4, -10], AROUND)),
        np.zeros((100, 3), np.float32),
        np.zeros((1, 3), np.float32),
    ],
    ids=["130 beams", "one beam", "column by column", "shuffled", "all at the origin", "one point"],
)
def test_implausible_order_is_unknown(points):
    assert (derive_ring(points) == 255).all()


def _plain_turns(points):
    """Count turns with arc tangents, as the compiled loop does with signs."""
    x, y, z = points[:, :3].astype(np.float64).T
    azimuth = np.arctan2(y, x) % (2 * np.pi)
    step = np.diff(azimuth, prepend=azimuth[0])
    turns = np.cumsum((step < -np.pi).astype(np.int64) - (step > np.pi))
    turns = -turns if turns[-1] < 0 else turns
    ring = np.maximum.accumulate(turns)
    return ring


def _plain_explained(group, points):
    x, y, z = points[:, :3].astype(np.float64).T
    length = np.linalg.norm(np.stack([x, y, z]), axis=0)
    sine = np.divide(z, length, out=np.zeros(len(z)), where=length > 0)
    means = np.bincount(group, sine) / np.maximum(np.bincount(group), 1)
    return 1 - np.mean((sine - means[group]) ** 2) / np.var(sine)


@pytest.mark.parametrize("seed", range(20))
def test_turns_equal_those_by_arc_tangents_and_the_variance_a_plain_one(seed):
    rng = np.random.default_rng(seed)
    steps = rng.choice([-1, 1]) * rng.normal(1.0, 4.0, 3000)  # degrees, often backwards
    azimuth = np.radians(np.cumsum(steps))
    points = rng.uniform(0.1, 80, 3000)[:, None] * np.stack(
        [np.cos(azimuth), np.sin(azimuth), rng.normal(0, 0.2, 3000)], axis=1
    )
    points = points.astype(np.float32)
    points[rng.integers(0, 3000, 60), rng.integers(0, 2, 60)] = rng.choice([0.0, -0.0], 60)
    points[rng.integers(0, 3000, 20), :2] = 0  # no direction from above
    points[rng.integers(0, 3000, 5)] = 0
    ring = np.empty(3000, np.int64)
    _count_turns(points, ring)
    np.testing.assert_array_equal(ring, _plain_turns(points))
    explained = _plain_explained(ring, points)
    np.testing.assert_allclose(_explained_variance(points, ring), explained, atol=1e-9)


def test_empty_scan():
    assert derive_ring(np.empty((0, 4), np.float32)).shape == (0,)


@pytest.mark.data
@pytest.mark.parametrize("number", [0, 5, 9])
def test_real_kitti_scan_has_64_beams_from_the_top_down(number):
    points = Kitti().scan(number)
    ring = derive_ring(points)
    assert np.unique(ring).tolist() == list(range(64))
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    middle = np.array([np.median(elevation[ring == beam]) for beam in range(64)])
    assert (np.diff(middle) < 0).all()
    assert 2 < middle[0] < 3.5 and -25.5 < middle[-1] < -23  # HDL-64E: +2 to -24.8 degrees
    assert np.bincount(ring).min() > 1000


@pytest.mark.data
def test_real_nuscenes_scan_goes_by_column_and_stays_unknown():
    (path,) = (recording("nuscenes") / "samples/LIDAR_TOP").iterdir()
    assert (derive_ring(np.fromfile(path, np.float32).reshape(-1, 5)) == 255).all()

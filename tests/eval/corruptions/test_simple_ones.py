"""The corruptions without physics, worked by hand on few points."""

import numpy as np
import pytest

from eval.corruptions import beam_missing, cross_sensor, crosstalk, incomplete_echo, motion_blur
from eval.scan import Scan


def rings_scan() -> Scan:
    """Two points for each of the 32 rings, one after the other."""
    ring = np.repeat(np.arange(32, dtype=np.uint8), 2)
    points = np.zeros((64, 4), np.float32)
    points[:, 0] = np.arange(64)
    return Scan(points, ring, np.full(64, 28, np.uint8))


@pytest.mark.parametrize(
    ("severity", "removed"),
    [
        ("light", [1, 5, 9, 13, 17, 21, 25, 29]),
        ("moderate", list(range(1, 32, 2))),
        ("heavy", [1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16, 18, 19, 20, 22, 23, 24, 26, 27,
                   28, 30, 31]),
    ],
)  # fmt: skip
def test_cross_sensor_removes_the_rings_of_the_list_then_every_second_point(severity, removed):
    assert len(removed) == {"light": 8, "moderate": 16, "heavy": 24}[severity]
    found = cross_sensor.corrupt(
        rings_scan(), cross_sensor.SEVERITIES[severity], np.random.default_rng(0)
    )
    kept = [ring for ring in range(32) if ring not in removed]
    assert found.ring.tolist() == kept  # two points a ring, one of them stays
    assert found.points[:, 0].tolist() == [2 * ring for ring in kept]


def test_beam_missing_draws_with_replacement_from_2_to_28():
    counts = {name: [] for name in beam_missing.SEVERITIES}
    for seed in range(400):
        for name, config in beam_missing.SEVERITIES.items():
            found = beam_missing.corrupt(rings_scan(), config, np.random.default_rng(seed))
            assert {0, 1, 29, 30, 31} <= set(found.ring.tolist())
            counts[name].append((64 - len(found.points)) / 2)
    means = [float(np.mean(counts[name])) for name in ("light", "moderate", "heavy")]
    # expectation 27 * (1 - (26/27)^n); the mean of 400 draws is within 4 sigma of it
    assert means == pytest.approx([7.04, 12.24, 16.09], abs=0.35)


def test_incomplete_echo_takes_the_floor_of_each_class_with_more_than_ten_points():
    labels = np.array([17] * 21 + [14] * 10 + [15] * 6 + [16] * 5 + [24] * 8, np.uint8)
    points = np.zeros((len(labels), 4), np.float32)
    scan = Scan(points, np.zeros(len(labels), np.uint8), labels)
    config = incomplete_echo.SEVERITIES["light"]
    found = incomplete_echo.corrupt(scan, config, np.random.default_rng(0))
    left = {raw: int((found.labels == raw).sum()) for raw in (17, 14, 24)}
    assert left == {17: 21 - 15, 14: 10, 24: 8}  # ten bicycle points are too few
    assert np.isin(found.labels, (15, 16)).sum() == 11 - 8  # both kinds of bus are one class


def test_crosstalk_marks_the_floor_and_moves_only_those():
    scan = rings_scan()
    config = crosstalk.Config(0.1)
    found = crosstalk.corrupt(scan, config, np.random.default_rng(0))
    noisy = found.labels == 43
    assert noisy.sum() == 6
    assert np.array_equal(found.points[~noisy], scan.points[~noisy])
    offsets = []
    for seed in range(300):
        found = crosstalk.corrupt(scan, config, np.random.default_rng(seed))
        noisy = found.labels == 43
        offsets.append((found.points - scan.points)[noisy])
    spread = np.concatenate(offsets).std(axis=0)
    assert spread == pytest.approx(3.0, rel=0.06)  # 1800 draws each


def test_motion_blur_is_one_offset_and_a_small_jitter():
    scan = Scan(np.zeros((20000, 4), np.float32), *np.zeros((2, 20000), np.uint8))
    found = motion_blur.corrupt(scan, motion_blur.Config(0.4), np.random.default_rng(3))
    moved = found.points[:, :3]
    offset = moved.mean(axis=0)
    expected = 0.4 * np.random.default_rng(3).standard_normal(3)
    assert offset == pytest.approx(expected, abs=1e-3)
    assert (moved - offset).std(axis=0) == pytest.approx([0.04, 0.04, 0.02], rel=0.03)
    draws = np.random.default_rng(3).standard_normal(3 + moved.size)[3:].reshape(moved.shape)
    assert np.abs(draws).max() > 4  # not cut at three standard deviations of its own
    np.testing.assert_allclose(moved - expected, draws * (0.04, 0.04, 0.02), atol=1e-6)
    assert not found.points[:, 3].any()

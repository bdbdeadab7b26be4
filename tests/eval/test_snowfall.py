import math

import numpy as np
import pytest

from eval.corruptions import snow
from eval.scan import SNOW, Scan
from eval.snowfall import (
    BEAM_RAD,
    FLAKE_POWER,
    NUM_BINS,
    PULSE_M,
    Flakes,
    apart,
    echo,
    focal_loss,
    scatter_flakes,
)
from tests.eval.corruptions.scans import make_scan


def flakes_at(*flakes) -> Flakes:
    """Flakes given as (azimuth, range, half angle), near azimuth 0."""
    azimuth, range_m, half = np.array(flakes, float).reshape(-1, 3).T
    bins = ((azimuth + math.pi) / BEAM_RAD).astype(int)
    order = np.argsort(bins, kind="stable")
    offsets = np.searchsorted(bins[order], np.arange(NUM_BINS + 1))
    return Flakes(azimuth[order], range_m[order], half[order], offsets, 3, 0.0)


def one(flakes, azimuth=0.0, range_m=20.0, intensity=100.0, keeps=False):
    found = echo(flakes, *(np.array([v]) for v in (azimuth, range_m, intensity)), keeps)
    return int(found.num_flakes[0]), float(found.range_m[0]), float(found.value[0])


def test_without_a_flake_in_the_beam_nothing_happens():
    assert one(flakes_at((0.01, 5, 0.001))) == (0, 20.0, 100.0)
    assert one(flakes_at((0.0, 25, 0.001))) == (0, 20.0, 100.0)  # behind the target


def test_a_flake_in_half_the_beam_by_hand():
    """It takes half; 229.5 / 2 / 25 = 4.6 from the flake, 229.5 / 2 / 400 from the target."""
    flakes = flakes_at((-BEAM_RAD / 2, 5, BEAM_RAD / 2))
    num, range_m, value = one(flakes)
    assert num == 1
    assert range_m == pytest.approx(5, abs=0.06)  # the waveform is sampled every 0.1 m
    assert value == pytest.approx(FLAKE_POWER / 2 / 25, rel=0.01)
    num, range_m, value = one(flakes, keeps=True)  # half of 100 beats it
    assert range_m == pytest.approx(20, abs=0.06) and value == pytest.approx(50, rel=0.01)


def test_the_nearer_flake_shades_the_farther():
    near, far = (0.0, 4, BEAM_RAD), (0.0, 4 + 2 * PULSE_M, BEAM_RAD)
    assert one(flakes_at(near, far))[2] == pytest.approx(one(flakes_at(near))[2])
    assert one(flakes_at(far, near))[0] == 2


def plain_echo(flakes, azimuth, range_m, intensity):
    """The slow twin: the beam as 20,000 rays, the waveform as plain sums."""
    rays = azimuth + BEAM_RAD * ((np.arange(20000) + 0.5) / 20000 - 0.5)
    owner = np.full(len(rays), -1)
    away = np.abs((azimuth - flakes.azimuth_rad + np.pi) % (2 * np.pi) - np.pi)
    before = (away < flakes.half_rad + BEAM_RAD) & (flakes.range_m < range_m)
    for k in sorted(np.flatnonzero(before), key=lambda k: -flakes.range_m[k]):  # nearest last
        off = (rays - flakes.azimuth_rad[k] + np.pi) % (2 * np.pi) - np.pi
        owner[np.abs(off) < flakes.half_rad[k]] = k
    hit, counts = np.unique(owner, return_counts=True)
    grid = np.arange(1201) * 0.1
    wave = np.zeros(1201)
    for k, count in zip(hit, counts, strict=True):
        at = range_m if k < 0 else flakes.range_m[k]
        pulse = np.sin(np.pi * (grid - at) / PULSE_M) ** 2 * ((grid >= at) & (grid <= at + PULSE_M))
        ramp = np.interp(at, [0.9, 1.0], [0, 1])
        wave += FLAKE_POWER * count / len(rays) * ramp / at**2 * pulse
    return wave.argmax() * 0.1 - PULSE_M / 2, wave.max()


def test_beams_through_real_snow_agree_with_the_plain_twin():
    flakes = scatter_flakes(2.5, 1.6, 0)
    rng = np.random.default_rng(0)
    azimuth, range_m = rng.uniform(-np.pi, np.pi, 40), rng.uniform(10, 60, 40)
    azimuth[0] = np.pi - 1e-4  # across the seam
    found = echo(flakes, azimuth, range_m, np.full(40, 50.0), False)
    assert (found.num_flakes > 0).sum() > 20
    for i in np.flatnonzero(found.num_flakes):
        at, value = plain_echo(flakes, azimuth[i], range_m[i], 50.0)
        # 20,000 rays see a share to 1e-4 of the beam; equal peaks may be one sample apart
        assert found.value[i] == pytest.approx(value, rel=0.03, abs=0.01)
        assert found.range_m[i] == pytest.approx(at, abs=0.11)


def test_snow_lies_as_the_formulas_say():
    light, heavy = scatter_flakes(0.5, 2.0, 0), scatter_flakes(2.5, 1.6, 0)
    assert light.occupancy == pytest.approx(0.5 / (3.6e6 * 0.1 * 2.0), rel=0.01)
    assert heavy.occupancy == pytest.approx(2.5 / (3.6e6 * 0.1 * 1.6), rel=0.01)
    # uniform in area: half of the flakes within 80 / sqrt(2) m
    assert (light.range_m < 80 / math.sqrt(2)).mean() == pytest.approx(0.5, abs=0.01)
    again = scatter_flakes.__wrapped__(0.5, 2.0, 0)
    assert again.range_m.tobytes() == light.range_m.tobytes()
    assert scatter_flakes(0.5, 2.0, 1).range_m.tobytes() != light.range_m.tobytes()


def test_circles_that_touch_an_earlier_one_are_left_out():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 0.2, (2, 300))
    radius = rng.uniform(0, 0.01, 300)
    kept: list[int] = []
    for i in range(300):
        if all(math.hypot(x[i] - x[j], y[i] - y[j]) >= radius[i] + radius[j] for j in kept):
            kept.append(i)
    assert apart(x, y, radius, np.argsort(x)).tolist() == kept and 20 < len(kept) < 280


def test_a_laser_loses_nothing_at_its_focus():
    focus_m = 120 * (1 - (1 - 15 / 131))  # ring 1: focal distance 15 m
    assert focal_loss(np.array([1]), np.array([focus_m]))[0] == pytest.approx(0, abs=1e-12)
    assert focal_loss(np.array([1]), np.array([60.0]))[0] == pytest.approx(
        1.2 * abs((1 - 15 / 131) ** 2 - 0.25)
    )


def test_rings_become_flags_and_moved_points_come_nearer():
    scan = make_scan()
    found = snow.corrupt(scan, snow.SEVERITIES["heavy"], np.random.default_rng(0))
    assert set(np.unique(found.ring)) == {0, 1, 2}
    assert np.array_equal(found.labels == SNOW, found.ring == 2)
    assert found.range_lidar[found.ring == 2].min() > 0.9
    untouched = {p.tobytes() for p in found.points[found.ring == 0]}
    assert untouched <= {p.tobytes() for p in scan.points}
    few = Scan(scan.points[:50], scan.ring[:50], scan.labels[:50])  # no ground to judge noise by
    assert len(snow.corrupt(few, snow.SEVERITIES["light"], np.random.default_rng(0)).points) == 50

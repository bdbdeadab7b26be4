import numpy as np
import pytest

from eval.corruptions import fog, wet_ground
from eval.lidar_physics import (
    BETA_0,
    FOG_PULSE_S,
    LIGHT_M_S,
    _noise_line,
    fog_echoes,
    fog_integral,
    ground_return,
    overlap,
    water_film,
)
from eval.scan import FOG, Scan
from tests.eval.corruptions.scans import GROUND_RAW, make_scan


def plain_integral(range_m, target_m, alpha, num=20000):
    """The slow twin: numpy, another number of samples, written as in the paper."""
    times = (np.arange(num) + 0.5) * 2 * FOG_PULSE_S / num
    r = range_m - LIGHT_M_S * times / 2
    xi = np.interp(r, [0.9, 1.0], [0.0, 1.0])
    with np.errstate(divide="ignore", over="ignore"):
        value = np.sin(np.pi * times / 2 / FOG_PULSE_S) ** 2 * np.exp(-2 * alpha * r) / r**2 * xi
    return float(np.where((r > 0.9) & (r < target_m), value, 0).sum() * 2 * FOG_PULSE_S / num)


@pytest.mark.parametrize("alpha", [0.0, 0.06])
def test_the_integral_agrees_with_its_plain_twin(alpha):
    for range_m, target_m in [(2.0, 1.5), (3.5, 50.0), (6.0, 4.0), (30.0, np.inf)]:
        # another sampling of the same integrand: differs by the cut's and the ramp's edges
        assert fog_integral(range_m, target_m, alpha) == pytest.approx(
            plain_integral(range_m, target_m, alpha), rel=2e-3
        )


@pytest.mark.parametrize("target_m", [0.5, 2.0, 3.3, 12.0, 150.0])
def test_the_table_holds_the_highest_echo_of_every_range(target_m):
    echoes, ranges = fog_echoes(0.02), np.arange(0, 60, 0.1)
    values = [fog_integral(r, target_m, 0.02) for r in ranges]
    at = np.array([target_m])
    assert echoes.strength(at)[0] == pytest.approx(max(values), rel=1e-12)
    if max(values) > 0:
        assert echoes.range_m(at)[0] == pytest.approx(ranges[int(np.argmax(values))])


def test_the_overlap_rises_between_90_and_100_cm():
    assert [overlap(r) for r in (0.5, 0.95, 3.0)] == pytest.approx([0, 0.5, 1])


def test_fog_by_hand_on_two_points():
    """At 5 m the hard echo wins and is damped; a dim point at 150 m drowns in heavy fog."""
    points = np.array([[3, 4, 0, 200], [0, 150, 0, 1]], np.float32)
    scan = Scan(points, np.zeros(2, np.uint8), np.array([17, 17], np.uint8))
    seed = next(s for s in range(99) if np.random.default_rng(s).choice(fog.ALPHAS) == 0.02)
    found = fog.corrupt(scan, fog.SEVERITIES["heavy"], np.random.default_rng(seed))
    assert found.labels.tolist() == [17, FOG]
    assert np.array_equal(found.points[0, :3], points[0, :3])
    assert found.points[0, 3] == round(200 * np.exp(-2 * 0.02 * 5))
    echoes = fog_echoes(0.02)
    soft = echoes.strength(np.array([150.0]))[0] * 150**2 * 0.2 / BETA_0
    assert found.points[1, 3] == pytest.approx(soft, rel=1e-6)
    peak_m = echoes.range_m(np.array([150.0]))[0]
    assert peak_m * 150 / 160 <= found.points[1, 1] <= peak_m * 150 / 140


def test_a_water_film_at_a_right_angle_by_hand():
    """theta = 0: t = 2 n1 / (n1 + n2), r = (n2 - n1) / (n1 + n2), both polarizations alike."""
    n_air, n_water, rho = 1.0003, 1.33, 0.3
    into = (2 * n_air / (n_air + n_water)) ** 2 * n_water / n_air
    out = (2 * n_water / (n_air + n_water)) ** 2 * n_water / n_air
    mirrored = ((n_water - n_air) / (n_air + n_water)) ** 2
    expected = into * rho * out / (1 - rho * mirrored)
    assert water_film(np.zeros(1), np.array([rho]))[0] == pytest.approx(expected, rel=1e-12)


def test_a_film_lets_less_through_at_grazing_angles_and_limits_the_road():
    shares = water_film(np.radians([0, 60, 80, 89]), np.full(4, 0.2))
    assert shares[-1] < 0.2 * shares[0] and (shares > 0).all()
    assert shares[1] > shares[2] > shares[3]
    dark, darker = water_film(np.ones(2), np.array([0.05, 0.0]))
    assert dark == darker


def test_the_noise_line_takes_the_emptiest_cells_and_needs_more_than_three():
    range_m = np.repeat(np.arange(10.6, 70, 1.2), 4)
    upright = np.tile([6.0, 20.0, 20.0, 20.0], 50) + range_m / 10
    slope, offset = _noise_line(range_m, upright, (0.0, 0.0))
    assert (slope, offset) == pytest.approx((0.1, 6.0), abs=0.06)  # a cell is 27 / 2555 high
    assert _noise_line(range_m, upright / 10, (7.0, 8.0)) == (7.0, 8.0)  # all below 5


def test_ground_is_measured_only_where_there_is_enough_of_it():
    scan = make_scan()
    ground = ground_return(scan)
    assert len(ground.point_idx) == 2000 and (scan.labels[ground.point_idx] == GROUND_RAW).all()
    assert ground.cos_angle == pytest.approx(1.8 / ground.range_m, rel=1e-5)
    few = scan.rows(np.flatnonzero(scan.ground_mask)[:999])
    assert ground_return(few) is None
    assert wet_ground.corrupt(few, wet_ground.SEVERITIES["heavy"], None) is few


def test_dry_ground_stays_and_other_points_come_first():
    scan = make_scan()
    dry = wet_ground.corrupt(scan, wet_ground.Config(0.0, 0.0), None)
    others = ~scan.ground_mask
    assert np.array_equal(dry.points[: others.sum()], scan.points[others])
    # P cos(theta) rho is the measured intensity, up to float32
    assert dry.points[others.sum() :, 3] == pytest.approx(scan.points[~others, 3], rel=1e-5)

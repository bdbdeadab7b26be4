"""What every corruption promises: pure, seeded, labels follow points, stronger means more."""

import time

import numpy as np
import pytest

from eval.corruptions.table import CORRUPTIONS, SEVERITIES, check_settings, corrupt
from eval.scan import CROSSTALK, FOG, SNOW, Scan
from pipeline.errors import UserError
from pipeline.formats import read_nuscenes_points
from tests.eval.corruptions.scans import GROUND_RAW, make_scan
from tests.pipeline.recordings import recording

ALL = [(kind, severity) for kind in CORRUPTIONS for severity in SEVERITIES]
MADE = {"fog": FOG, "snow": SNOW, "crosstalk": CROSSTALK}


@pytest.fixture(scope="module")
def scan():
    return make_scan()


@pytest.fixture(scope="module")
def outcome(scan):
    return {pair: corrupt(scan, *pair, "scene/0") for pair in ALL}


def same(a: Scan, b: Scan) -> bool:
    return all(getattr(a, n).tobytes() == getattr(b, n).tobytes() for n in vars(a))


@pytest.mark.parametrize(("kind", "severity"), ALL)
def test_same_key_same_bytes_and_the_input_stays(scan, outcome, kind, severity):
    before = make_scan()
    assert same(corrupt(scan, kind, severity, "scene/0"), outcome[kind, severity])
    assert same(scan, before)
    if kind not in ("wet_ground", "cross_sensor"):  # these two draw nothing
        assert not same(corrupt(scan, kind, severity, "scene/1"), outcome[kind, severity])


@pytest.mark.parametrize(("kind", "severity"), ALL)
def test_labels_follow_their_points(scan, outcome, kind, severity):
    """A scan whose x tells its row: every surviving row has that row's label, or the made one."""
    found = outcome[kind, severity]
    assert len(found.points) == len(found.labels) == len(found.ring) <= len(scan.points)
    azimuth = np.arctan2(*scan.points[:, 1::-1].T.astype(np.float64))
    order = np.argsort(azimuth)
    kept = ~np.isin(found.labels, (FOG, CROSSTALK))  # these also move off their ray
    if kind == "motion_blur":
        assert np.array_equal(found.labels, scan.labels)
        return
    now = np.arctan2(*found.points[kept, 1::-1].T.astype(np.float64))
    at = np.searchsorted(azimuth[order], now)
    near = np.stack([order[np.clip(at - 1, 0, None)], order[np.clip(at, None, len(order) - 1)]])
    rows = near[np.abs(azimuth[near] - now).argmin(0), np.arange(len(now))]
    assert np.abs(azimuth[rows] - now).max() < 1e-6
    is_same = found.labels[kept] == scan.labels[rows]
    assert (is_same | (found.labels[kept] == SNOW)).all() and is_same.sum() > 10


def changed(before: Scan, after: Scan, kind: str) -> float:
    if kind in MADE:
        return float((after.labels == MADE[kind]).sum())
    if kind == "motion_blur":
        return float(np.abs(after.points - before.points)[:, :3].mean())
    if kind == "wet_ground":
        ground = [s.points[s.labels == GROUND_RAW, 3].sum() for s in (before, after)]
        return float(ground[0] - ground[1])
    return float(len(before.points) - len(after.points))


@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_heavier_changes_more(scan, outcome, kind):
    light, moderate, heavy = (changed(scan, outcome[kind, s], kind) for s in SEVERITIES)
    assert 0 < light < moderate < heavy


def test_values_stay_finite(outcome):
    assert all(np.isfinite(found.points).all() for found in outcome.values())


def test_a_level_can_be_set_and_others_stay(scan):
    """Twice the standard deviation moves every point twice as far: the draws are the same."""
    setting = ("motion_blur.heavy.sigma_m=0.8",)
    plain, set_ = (corrupt(scan, "motion_blur", "heavy", "k", settings=s) for s in ((), setting))
    moved, further = (found.points - scan.points for found in (plain, set_))
    np.testing.assert_allclose(further[:, :3], 2 * moved[:, :3], atol=1e-4)
    light = (corrupt(scan, "motion_blur", "light", "k", settings=s) for s in ((), setting))
    assert same(*light)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sigma_m=1", "must be KIND.SEVERITY.KEY=VALUE, like motion_blur.heavy.sigma_m=0.5"),
        ("motion_blur.hevy.sigma_m=1", "did you mean 'heavy'"),
        ("motion_blr.heavy.sigma_m=1", "did you mean 'motion_blur'"),
        ("motion_blur.heavy.sigma=1", "did you mean 'sigma_m'"),
        ("crosstalk.light.fraction=some", "must be float, got 'some'"),
    ],
)
def test_a_level_that_is_none_is_one_clear_line(setting, message):
    with pytest.raises(UserError, match=message):
        check_settings((setting,))


def test_an_empty_scan_stays_empty():
    nothing = make_scan().rows(np.zeros(0, np.int64))
    for pair in ALL:
        assert len(corrupt(nothing, *pair, "x").points) == 0


def test_bad_input_gets_one_clear_line(scan):
    with pytest.raises(UserError, match=r"corruption: unknown name 'frog'; did you mean 'fog'"):
        corrupt(scan, "frog", "light", "x")
    with pytest.raises(UserError, match=r"severity: unknown name 'high'; .*heavy, light, moderate"):
        corrupt(scan, "fog", "high", "x")
    rings = np.full(len(scan.points), 255, np.uint8)
    with pytest.raises(UserError, match=r"ring must be in 0..31, got 255"):
        corrupt(Scan(scan.points, rings, scan.labels), "fog", "light", "x")
    with pytest.raises(UserError, match=r"one raw label per point"):
        Scan(scan.points, scan.ring, scan.labels[:-1])


@pytest.mark.data
def test_all_24_variants_of_a_real_scan_take_less_than_ten_seconds_of_one_core():
    """Labels are made up (the recording has none): ground by height, some cars."""
    path = next(recording("nuscenes/samples/LIDAR_TOP").iterdir())
    cloud = read_nuscenes_points(path)
    assert len(cloud.points) == 34688
    labels = np.where(cloud.points[:, 2] < -1.5, GROUND_RAW, 28).astype(np.uint8)
    labels[::10] = 17
    scan = Scan(cloud.points, cloud.ring, labels)
    tiny = make_scan(1200)
    for pair in ALL:  # compile, or load what is compiled
        corrupt(tiny, *pair, "x")
    start = time.process_time()
    for pair in ALL:
        assert len(corrupt(scan, *pair, "scene/0").points) > 0
    assert time.process_time() - start < 10

"""Snowflakes around a laser, and the echo that a beam through them gives.

In: a snowfall, beams with their targets. Out: range and strength of the strongest echo. Flakes lie
in bins of azimuth one beam wide, so that a beam looks at a few dozen of some 20,000.
"""

import functools
import math
from dataclasses import dataclass

import numba
import numpy as np

from eval.lidar_physics import LIGHT_M_S, overlap

SEED = 1205
NUM_LAYOUTS = 64
DISK_M = 80.0  # radius around the sensor in which there are flakes
MAX_FLAKE_M = 0.02
BEAM_RAD = 0.003
NUM_BINS = math.ceil(2 * math.pi / BEAM_RAD)
PULSE_M = LIGHT_M_S * 10e-9
STEP_M, WAVE_M = 0.1, 120.0
FLAKE_POWER = 0.9 * 255  # intensity of a flake that fills the beam at 1 m
SNOW_DENSITY = 0.1  # g/cm^3
FOCUS_RANGE_M = 131.0
# Focal distance (m) and slope of the first 32 lasers of an HDL-64E S3: measured values of one unit,
# from ros-drivers/velodyne 64e_s3-xiesc.yaml (BSD). Robo3D has another unit's.
FOCAL_DISTANCE_M = np.array([
    10.5, 15, 24, 14.5, 15, 17, 10.5, 14, 15, 12.5, 12.5, 13, 14.5, 20.5, 12.5, 19.5,
    24, 14.5, 17.5, 24, 24, 15.5, 20.5, 14.5, 11.5, 18.5, 13, 21.5, 13.5, 18.5, 18.5, 21.5,
])  # fmt: skip
FOCAL_SLOPE = np.array([
    1.85, 1.2, 1.05, 1.7, 0.4, 1.45, 1, 1.3, 0.95, 1.95, 1.95, 1.9, 1.7, 1.25, 1.9, 0.95,
    0.7, 1.65, 1.4, 1.25, 1.1, 1.55, 1.2, 1.65, 2, 1.25, 1.9, 1.1, 1.83, 1.35, 1.35, 1.15,
])  # fmt: skip


@dataclass(frozen=True)
class Flakes:
    """The flakes that one laser's plane cuts, sorted by azimuth; S of them."""

    azimuth_rad: np.ndarray  # [S] float64, ascending, -pi..pi
    range_m: np.ndarray  # [S] float64, of the center
    half_rad: np.ndarray  # [S] float64, half the angle it covers
    offsets: np.ndarray  # [NUM_BINS + 1] int64, flakes of each bin of azimuth
    reach: int  # bins to either side in which a flake may still touch a beam
    occupancy: float  # share of the disk that is snow


@dataclass(frozen=True)
class Echoes:
    """The strongest echo of each of N beams."""

    num_flakes: np.ndarray  # [N] int64 in the beam, before the target
    range_m: np.ndarray  # [N] float64
    value: np.ndarray  # [N] float64, intensity; 0 where nothing comes back


def focal_loss(ring: np.ndarray, range_m: np.ndarray) -> np.ndarray:
    """Return the share of the full intensity [N] that a laser out of focus loses at a range."""
    focus = (1 - FOCAL_DISTANCE_M[ring] / FOCUS_RANGE_M) ** 2
    return FOCAL_SLOPE[ring] * np.abs(focus - (1 - range_m / WAVE_M) ** 2)


@functools.cache
def scatter_flakes(snowfall_mm_h: float, velocity_m_s: float, number: int) -> Flakes:
    """Return the flakes in one laser's plane: uniform in the disk, none touching another.

    Args:
        snowfall_mm_h: as water.
        velocity_m_s: terminal velocity.
        number: of the layout, 0..63; decides the draws.

    Source: method.md 6.4, 8: rain rate and occupancy from the snowfall, Gunn and Marshall's
    distribution of diameters, each sphere cut at a random height.
    """
    rng = np.random.default_rng([SEED, number])
    rain = (snowfall_mm_h / (487 * SNOW_DENSITY * BEAM_RAD * velocity_m_s)) ** 1.5
    per_m = 100 * 25.5 * rain**-0.48
    goal_m2 = snowfall_mm_h / (3.6e6 * SNOW_DENSITY * velocity_m_s) * math.pi * DISK_M**2
    mean_m2 = math.pi / 3 / per_m**2  # of a cut: pi * (2/3) * E[d^2] / 4 with E[d^2] = 2 / rate^2
    x, y, radius = (np.zeros(0) for _ in range(3))
    while True:
        count = round(1.2 * goal_m2 / mean_m2) + 100
        draws = rng.random((4, count))
        sphere = -np.log1p(-draws[0]) / per_m / 2
        cut = sphere * np.sqrt(1 - draws[1] ** 2)
        center, azimuth = DISK_M * np.sqrt(draws[2]), math.pi * (2 * draws[3] - 1)
        kept = (2 * sphere <= MAX_FLAKE_M) & (center > cut)
        x = np.concatenate([x, (center * np.cos(azimuth))[kept]])
        y = np.concatenate([y, (center * np.sin(azimuth))[kept]])
        radius = np.concatenate([radius, cut[kept]])
        free = apart(x, y, radius, np.argsort(x, kind="stable"))
        area = np.cumsum(math.pi * radius[free] ** 2)
        if area[-1] >= goal_m2:
            chosen = free[: int(np.searchsorted(area, goal_m2)) + 1]
            return _sort_flakes(x[chosen], y[chosen], radius[chosen])


@numba.njit(cache=True)
def apart(x: np.ndarray, y: np.ndarray, radius: np.ndarray, by_x: np.ndarray) -> np.ndarray:
    """Return the circles [A] in order that touch no earlier one; `by_x` sorts them by x."""
    place = np.empty(len(x), np.int64)
    place[by_x] = np.arange(len(x))
    kept = np.zeros(len(x), np.bool_)
    for i in range(len(x)):
        is_free = True
        for step in (-1, 1):
            k = place[i] + step
            while 0 <= k < len(x) and abs(x[by_x[k]] - x[i]) < MAX_FLAKE_M:
                j = by_x[k]
                if j < i and kept[j]:
                    touch = radius[i] + radius[j]
                    if (x[i] - x[j]) ** 2 + (y[i] - y[j]) ** 2 < touch**2:
                        is_free = False
                k += step
        kept[i] = is_free
    return np.flatnonzero(kept)


def _sort_flakes(x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> Flakes:
    azimuth, center = np.arctan2(y, x), np.hypot(x, y)
    half = np.arcsin(np.minimum(radius / center, 1.0))
    bins = np.minimum(((azimuth + math.pi) / BEAM_RAD).astype(np.int64), NUM_BINS - 1)
    order = np.lexsort((azimuth, bins))
    offsets = np.searchsorted(bins[order], np.arange(NUM_BINS + 1))
    reach = math.ceil((half.max() + BEAM_RAD / 2) / BEAM_RAD) + 1  # the last bin is narrower
    occupancy = float((math.pi * radius**2).sum() / (math.pi * DISK_M**2))
    return Flakes(azimuth[order], center[order], half[order], offsets, reach, occupancy)


def echo(
    flakes: Flakes,
    azimuth_rad: np.ndarray,
    range_m: np.ndarray,
    intensity: np.ndarray,
    target_keeps_power: bool,
) -> Echoes:
    """Return the strongest echo of each beam.

    Args:
        flakes: of the laser.
        azimuth_rad: [N] of the beams.
        range_m: [N] of their targets.
        intensity: [N] of the targets without snow, 0..255.
        target_keeps_power: False = a target behind flakes is taken as one of them, so that it loses
            1 / range^2, as the published simulation does; True = it keeps its own intensity.

    Source: method.md 6.4, 8.
    """
    parts = (flakes.azimuth_rad, flakes.range_m, flakes.half_rad, flakes.offsets, flakes.reach)
    return Echoes(*trace(*parts, azimuth_rad, range_m, intensity, target_keeps_power))


@numba.njit(cache=True)
def trace(
    flake_azimuth, flake_range, flake_half, offsets, reach,
    azimuth_rad, range_m, intensity, target_keeps_power,
):  # fmt: skip
    """Return (flakes, range, value) of each beam; see `echo`."""
    count = len(range_m)
    num, peak_m, value = np.zeros(count, np.int64), range_m.copy(), intensity.copy()
    wave = np.zeros(int(round(WAVE_M / STEP_M)) + 1)
    found = np.empty((len(flake_range), 3))  # range, from, to of the flakes in a beam
    free = np.empty((2 * len(flake_range) + 2, 2))  # the parts of a beam that are still free
    for i in range(count):
        if range_m[i] > WAVE_M:
            continue
        num[i] = _in_beam(
            flake_azimuth,
            flake_range,
            flake_half,
            offsets,
            reach,
            azimuth_rad[i],
            range_m[i],
            found,
        )
        if num[i] == 0:
            continue
        wave[:] = 0
        left = 1.0
        free[0, 0], free[0, 1], num_free = -BEAM_RAD / 2, BEAM_RAD / 2, 1
        for j in range(num[i]):
            at = found[j, 0]
            num_free, share = _take(free, num_free, found[j, 1], found[j, 2])
            left -= share
            _add_pulse(wave, at, FLAKE_POWER * share * overlap(at) / at**2)
        power = intensity[i] if target_keeps_power else FLAKE_POWER / range_m[i] ** 2
        _add_pulse(wave, range_m[i], power * max(left, 0.0) * overlap(range_m[i]))
        best = 0
        for k in range(1, len(wave)):
            if wave[k] > wave[best]:
                best = k
        value[i] = wave[best]
        if value[i] > 0:
            peak_m[i] = best * STEP_M - PULSE_M / 2
    return num, peak_m, value


@numba.njit(cache=True)
def _in_beam(flake_azimuth, flake_range, flake_half, offsets, reach, azimuth, target_m, found):
    """Fill range, first and last angle of the flakes before the target, nearest first; count."""
    count = 0
    center_bin = int((azimuth + math.pi) / BEAM_RAD)
    for step in range(-reach, reach + 1):
        b = (center_bin + step) % NUM_BINS
        for k in range(offsets[b], offsets[b + 1]):
            if flake_range[k] >= target_m:
                continue
            off = (flake_azimuth[k] - azimuth + math.pi) % (2 * math.pi) - math.pi
            a, z = max(off - flake_half[k], -BEAM_RAD / 2), min(off + flake_half[k], BEAM_RAD / 2)
            if a >= z:
                continue
            place = count
            while place > 0 and found[place - 1, 0] > flake_range[k]:
                for c in range(3):
                    found[place, c] = found[place - 1, c]
                place -= 1
            found[place, 0], found[place, 1], found[place, 2] = flake_range[k], a, z
            count += 1
    return count


@numba.njit(cache=True)
def _take(free, num_free, a, z):
    """Cut a..z out of the free parts of a beam; return their number and the share taken."""
    taken, stop = 0.0, num_free
    for p in range(stop):
        low, high = free[p, 0], free[p, 1]
        covered = min(z, high) - max(a, low)
        if covered <= 0:
            continue
        taken += covered
        free[p, 1] = max(min(a, high), low)  # what is left below, may be empty
        if z < high:
            free[num_free, 0], free[num_free, 1] = z, high
            num_free += 1
    return num_free, taken / BEAM_RAD


@numba.njit(cache=True)
def _add_pulse(wave, from_m, height):
    """Add the echo of one reflector to a waveform."""
    first = int(math.ceil(from_m / STEP_M))
    last = min(int(math.floor((from_m + PULSE_M) / STEP_M)), len(wave) - 1)
    for k in range(first, last + 1):
        wave[k] += height * math.sin(math.pi * (k * STEP_M - from_m) / PULSE_M) ** 2

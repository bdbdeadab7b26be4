"""What several corruptions need of a LiDAR's physics: echoes of fog, ground returns, a water film.

In: ranges, intensities, angles. Out: echo strengths and levels. Fog's table is an integral per
range; it does not depend on the target once the target is behind the fog's own peak, so only the
first few meters are integrated one by one (0.3 s instead of 20 s for the whole table).
"""

import functools
import math
from dataclasses import dataclass

import numba
import numpy as np

from eval.scan import Scan

LIGHT_M_S = 299_792_458.0
BETA_0 = 1e-6 / math.pi  # backscatter of a hard target, 1/sr: reflectivity 1e-6 over pi
FOG_PULSE_S = 20e-9  # half-power width of the pulse
FOG_SAMPLES = 2000  # of the integral, as in the published tables
FOG_STEP_M, FOG_MAX_M = 0.1, 200.0
BLIND_M, CLEAR_M = 0.9, 1.0  # receiver and beam do not overlap below, do fully above
MIN_GROUND_POINTS = 1000
NOISE_RANGE_M, NOISE_BINS = (10.0, 70.0), (50, 2555)
MIN_NOISE_LEVEL = 5.0
LEVEL_GAIN = 15.0
N_AIR, N_WATER = 1.0003, 1.33
REFLECTIVITY = (0.05, 1.0)  # limits of the road's


@numba.njit(cache=True)
def overlap(range_m: float) -> float:
    """Return the share of the beam that the receiver sees at a range, 0..1."""
    return min(max((range_m - BLIND_M) / (CLEAR_M - BLIND_M), 0.0), 1.0)


@dataclass(frozen=True)
class FogEchoes:
    """The fog's strongest echo in front of a hard target, by the target's range."""

    peaks: np.ndarray  # [2001] float64, normalized strength, per m^2 times s
    ranges_m: np.ndarray  # [2001] float64, where it is

    def strength(self, range_m: np.ndarray) -> np.ndarray:
        """Return the strength in front of targets at these ranges."""
        return self.peaks[_fog_rows(range_m)]

    def range_m(self, range_m: np.ndarray) -> np.ndarray:
        """Return the range of the echo in front of targets at these ranges, m."""
        return self.ranges_m[_fog_rows(range_m)]


def _fog_rows(range_m: np.ndarray) -> np.ndarray:
    last = round(FOG_MAX_M / FOG_STEP_M)
    return np.minimum(np.rint(range_m / FOG_STEP_M), last).astype(np.int64)


@functools.cache
def fog_echoes(alpha: float) -> FogEchoes:
    """Return the table of fog echoes for an attenuation (1/m).

    Source: method.md 6.4, 6: s(R0) = max over R of the integral over the pulse.
    """
    rows = round(FOG_MAX_M / FOG_STEP_M) + 1
    behind = LIGHT_M_S * FOG_PULSE_S  # an echo ends that far behind what made it
    ranges = np.arange(rows + math.ceil(behind / FOG_STEP_M)) * FOG_STEP_M
    free = np.array([fog_integral(r, np.inf, alpha) for r in ranges])
    best = int(free.argmax())
    peaks, found = np.full(rows, free[best]), np.full(rows, ranges[best])
    for row in range(best + 1):  # a target this near cuts the echo off
        cut = [fog_integral(r, row * FOG_STEP_M, alpha) for r in ranges[: best + 1]]
        peaks[row], found[row] = max(cut), ranges[int(np.argmax(cut))]
    return FogEchoes(peaks, found)


@numba.njit(cache=True)
def fog_integral(range_m: float, target_m: float, alpha: float) -> float:
    """Return the fog's echo as received from one range, normalized (midpoint rule)."""
    step_s = 2 * FOG_PULSE_S / FOG_SAMPLES
    total = 0.0
    for k in range(FOG_SAMPLES):
        time_s = (k + 0.5) * step_s
        from_m = range_m - LIGHT_M_S * time_s / 2
        if BLIND_M < from_m < target_m:
            pulse = math.sin(math.pi * time_s / (2 * FOG_PULSE_S)) ** 2
            total += pulse * math.exp(-2 * alpha * from_m) / from_m**2 * overlap(from_m)
    return total * step_s


@dataclass(frozen=True)
class GroundReturn:
    """The ground points of a scan and what their intensities say; G of them."""

    point_idx: np.ndarray  # [G] int64
    range_m: np.ndarray  # [G] float64
    angle_rad: np.ndarray  # [G] float64, incidence, 0 = straight down
    cos_angle: np.ndarray  # [G] float64
    intensity: np.ndarray  # [G] float64, 0..1
    level: np.ndarray  # [G] float64, emitted level P
    noise: np.ndarray  # [G] float64, level of the noise line


def ground_return(scan: Scan) -> GroundReturn | None:
    """Return the ground's returns; None where a scan has fewer than 1000 of them.

    Source: method.md 6.4, 7. Ours: labeled ground at or above the sensor is left out, since its
    angle of incidence on a level plane is not defined.
    """
    below = scan.ground_mask & (scan.points[:, 2] < 0)
    at = np.flatnonzero(below)
    if len(at) < MIN_GROUND_POINTS:
        return None
    range_m = scan.range_lidar[at]
    cos_angle = -scan.points[at, 2].astype(np.float64) / range_m
    angle_rad = np.maximum(np.arccos(np.minimum(cos_angle, 1.0)), 1e-6)  # divided by later
    intensity = scan.points[at, 3].astype(np.float64) / 255
    upright = intensity / cos_angle
    slope, offset = np.polyfit(range_m, upright, 1)
    noise = np.polyval(_noise_line(range_m, upright, (slope, offset)), range_m)
    level = LEVEL_GAIN * (slope * range_m + offset)
    return GroundReturn(at, range_m, angle_rad, cos_angle, intensity, level, noise)


def _noise_line(
    range_m: np.ndarray, upright: np.ndarray, otherwise: tuple[float, float]
) -> tuple[float, float]:
    """Return slope and offset of the weakest returns over range.

    Per range bin the least populated intensity cell that is not empty, the lowest of equals; the
    source takes one by a partial sort whose choice among equals is not defined.
    """
    limits = (NOISE_RANGE_M, (0.0, max(float(upright.max()), 1e-9)))
    counts, range_edges, edges = np.histogram2d(range_m, upright, NOISE_BINS, limits)
    weakest = np.where(counts > 0, counts, np.inf).argmin(axis=1)
    values = np.where(counts.any(axis=1), edges[weakest], 0)
    used = values > MIN_NOISE_LEVEL
    if used.sum() <= 3:
        return otherwise
    centers = (range_edges[1:] + range_edges[:-1]) / 2
    slope, offset = np.polyfit(centers[used], values[used], 1)
    return float(slope), float(offset)


def water_film(angle_rad: np.ndarray, reflectivity: np.ndarray) -> np.ndarray:
    """Return the power share that comes back through a film of water over a diffuse road.

    In and out through the surface, with the light that the film keeps mirroring back to the road:
    T_in * rho * T_out / (1 - rho * R_out), the stronger of the two polarizations.

    Args:
        angle_rad: [G] of incidence in air.
        reflectivity: [G] of the road, limited to 0.05..1.

    Source: Fresnel's equations as method.md 6.4, 7 quotes them: each transmitted amplitude squared
    is divided by cos(incoming) n_air / (n_water cos(outgoing)). On the way in that is the power; on
    the way out a textbook would multiply by n_air / n_water, the published simulation divides.
    """
    rho = np.clip(reflectivity, *REFLECTIVITY)
    cos_air = np.cos(angle_rad)
    cos_water = np.sqrt(1 - (N_AIR / N_WATER * np.sin(angle_rad)) ** 2)
    per_area = N_AIR / N_WATER * cos_air / cos_water, N_AIR / N_WATER * cos_water / cos_air
    air, water = (N_AIR, cos_air, cos_water), (N_WATER, cos_water, cos_air)
    shares = []
    for is_parallel in (False, True):
        into, _ = _amplitudes(*air, N_WATER, is_parallel)
        out, mirrored = _amplitudes(*water, N_AIR, is_parallel)
        passed = into**2 / per_area[0] * out**2 / per_area[1]
        shares.append(passed * rho / (1 - rho * mirrored**2))
    return np.maximum(*shares)


def _amplitudes(
    n_from: float, cos_from: np.ndarray, cos_to: np.ndarray, n_to: float, is_parallel: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return transmitted and mirrored amplitude at one surface (Fresnel)."""
    a, b = (n_to * cos_from, n_from * cos_to) if is_parallel else (n_from * cos_from, n_to * cos_to)
    return 2 * n_from * cos_from / (a + b), (a - b) / (a + b)

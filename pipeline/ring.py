"""Beam numbers for scans that come without them (KITTI's HDL-64 files).

In: a scan in file order. Out: the beam of each point, counted in file order. KITTI files hold one
beam after the other, each a full turn, so a beam ends where the azimuth passes 2 pi; the result is
kept only if it explains the elevations, since other files (nuScenes) go column by column.
"""

import numba
import numpy as np

from pipeline.schema import NO_RING

MAX_RINGS = 128
# of the variance of the sine of elevation; 0.998 on KITTI, 0.001 on nuScenes or shuffled
_MIN_EXPLAINED = 0.9
_SAMPLE = 8192  # points that it is estimated from, at least; every one cost 2 % of stage `frames`


def derive_ring(points: np.ndarray) -> np.ndarray:
    """Return the beam number of every point of a scan.

    Args:
        points: [N, >=3] float32, m, sensor frame, in file order.

    Returns:
        [N] uint8, 0 = first beam of the file (the highest on KITTI); all 255 (unknown) where the
        file order is not beam by beam: fewer than 2 or more than 128 turns, or turns that are not
        rings of like elevation.

    Source: the idea of RangeNet++'s and SqueezeSegV3's scan unfolding; ours counts turns both ways
    and checks the outcome.
    """
    unknown = np.full(len(points), NO_RING, np.uint8)
    if len(points) == 0:
        return unknown
    ring = np.empty(len(points), np.int64)
    num_turns = _count_turns(points, ring)
    if not 1 <= num_turns < MAX_RINGS:
        return unknown
    step = max(1, len(points) // _SAMPLE)
    sample = np.ascontiguousarray(points[::step]), np.ascontiguousarray(ring[::step])
    if _explained_variance(*sample) < _MIN_EXPLAINED:
        return unknown
    return ring.astype(np.uint8)


@numba.njit(cache=True)
def _count_turns(points, ring):
    """Fill the turns so far at each point; return those of the whole scan.

    A step in azimuth passes 2 pi where it would be longer than half a turn. Signs of y and of the
    cross product say so exactly; two arc tangents a point would take ten times as long.
    """
    for direction in (1, -1):  # the sensor may turn clockwise
        turns = highest = 0
        x_before, y_before = _seen_from_above(points[0])
        for i in range(len(points)):
            x, y = _seen_from_above(points[i])
            cross = x_before * y - y_before * x
            if y_before < 0 and y >= 0 and cross > 0:
                turns += direction
            elif y_before >= 0 and y < 0 and cross < 0:
                turns -= direction
            # a point that jitters back over 2 pi stays in its beam
            highest = max(highest, turns)
            ring[i] = highest
            x_before, y_before = x, y
        if turns >= 0:
            break
    return ring[-1]


@numba.njit(cache=True)
def _seen_from_above(point):
    x, y = np.float64(point[0]), np.float64(point[1])
    return (1.0, 0.0) if x == 0 and y == 0 else (x, y)  # azimuth 0, as arctan2 has it


@numba.njit(cache=True)
def _explained_variance(points, group):
    """Return the share of the variance of the sine of elevation that lies between groups, 0..1."""
    num_groups = group.max() + 1
    count, total, squares = np.zeros(num_groups), np.zeros(num_groups), 0.0
    for i in range(len(points)):
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        range_m = np.sqrt(x * x + y * y + z * z)
        sine = z / range_m if range_m > 0 else 0.0
        count[group[i]] += 1
        total[group[i]] += sine
        squares += sine * sine
    mean_square = np.sum(total * total / np.maximum(count, 1)) / len(points)
    mean = np.sum(total) / len(points)
    variance = squares / len(points) - mean * mean
    return (mean_square - mean * mean) / variance if variance > 1e-12 else 0.0

"""Beam numbers for scans that come without them (KITTI's HDL-64 files).

In: a scan in file order. Out: the beam of each point, counted in file order. KITTI files hold one
beam after the other, each a full turn, so a beam ends where the azimuth passes 2 pi; the result is
kept only if it explains the elevations, since other files (nuScenes) go column by column.
"""

import numpy as np

from pipeline.schema import NO_RING

MAX_RINGS = 128
_MIN_EXPLAINED = (
    0.9  # of the variance of elevation; 0.997 on KITTI, 0.002 on nuScenes, 0.001 shuffled
)


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
    x, y, z = points[:, :3].astype(np.float64).T
    azimuth_rad = np.arctan2(y, x) % (2 * np.pi)
    step_rad = np.diff(azimuth_rad, prepend=azimuth_rad[0])
    turns = np.cumsum((step_rad < -np.pi).astype(np.int64) - (step_rad > np.pi))
    if turns[-1] < 0:  # the sensor turns clockwise
        turns = -turns
    ring = np.maximum.accumulate(turns)  # a point that jitters back over 2 pi stays in its beam
    ring -= ring[0]
    if not 1 <= ring[-1] < MAX_RINGS:
        return unknown
    if _explained_variance(ring, np.arctan2(z, np.hypot(x, y))) < _MIN_EXPLAINED:
        return unknown
    return ring.astype(np.uint8)


def _explained_variance(group: np.ndarray, value: np.ndarray) -> float:
    """Return the share of the variance of `value` that lies between the groups, 0..1."""
    counts = np.bincount(group)
    means = np.bincount(group, value) / np.maximum(counts, 1)
    within = np.mean((value - means[group]) ** 2)
    total = np.var(value)
    return float(1 - within / total) if total > 0 else 0.0

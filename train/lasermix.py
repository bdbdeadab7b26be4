"""LaserMix: two scans cut into bands of equal inclination and put together alternately.

In: two clouds with one number per point. Out: two mixed clouds. Objects keep their surroundings
along the beam, since what a LiDAR sees depends on the inclination most of all.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabeledPoints:
    """A cloud with labels, true or guessed."""

    points: np.ndarray  # [N, 4] float32, m and intensity, LiDAR frame
    labels: np.ndarray  # [N] uint8 train ids, 255 = ignored


def mix(
    one: LabeledPoints, other: LabeledPoints, num_areas: int
) -> tuple[LabeledPoints, LabeledPoints]:
    """Return the even bands of one with the odd bands of the other, and the other way round.

    Args:
        one: a scan.
        other: another one.
        num_areas: bands of equal angle between the lowest and the highest point of both.

    Raises:
        ValueError: fewer than two bands.

    Source: Kong et al., LaserMix, CVPR 2023, section 3. There the bands span the sensor's nominal
    field of view; here the scans' own.
    """
    if num_areas < 2:
        raise ValueError(f"mix: num_areas must be at least 2, got {num_areas}; LaserMix takes more")
    angles = [inclination_rad(scan.points) for scan in (one, other)]
    both = np.concatenate(angles)
    low, high = (both.min(), both.max()) if len(both) else (0.0, 1.0)
    inner = np.linspace(low, high, num_areas + 1)[1:-1]
    is_even = [np.searchsorted(inner, each, side="right") % 2 == 0 for each in angles]
    return (
        _join(one, is_even[0], other, ~is_even[1]),
        _join(other, is_even[1], one, ~is_even[0]),
    )


def inclination_rad(points_lidar: np.ndarray) -> np.ndarray:
    """Return each point's angle above the horizontal plane through the sensor [N] float64."""
    x, y, z = points_lidar[:, :3].astype(np.float64).T
    return np.arctan2(z, np.hypot(x, y))


def _join(
    one: LabeledPoints, mine: np.ndarray, other: LabeledPoints, theirs: np.ndarray
) -> LabeledPoints:
    return LabeledPoints(
        np.concatenate([one.points[mine], other.points[theirs]]),
        np.concatenate([one.labels[mine], other.labels[theirs]]),
    )

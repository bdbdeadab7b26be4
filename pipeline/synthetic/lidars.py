"""The LiDARs that a city can be driven with: beams, their angles, and where they are mounted.

Another LiDAR sees the same city: streets, things, light, cameras and the ego's motion are drawn
before and without it, so two cities of one seed differ in their scans alone.
"""

from dataclasses import dataclass

import numpy as np

DEFAULT = "beams32"


@dataclass(frozen=True)
class Lidar:
    """A spinning LiDAR on the roof."""

    elevation_deg: tuple[float, ...]  # of each ring, lowest first
    position: tuple[float, float, float]  # in the ego frame, m
    yaw_deg: float  # of the sensor's x axis in the ego frame


def _evenly(lowest_deg: float, highest_deg: float, count: int) -> tuple[float, ...]:
    return tuple(np.linspace(lowest_deg, highest_deg, count).tolist())


LIDARS = {
    # nuScenes': an HDL-32E above the front seats, x to the right
    "beams32": Lidar(_evenly(-30.67, 10.67, 32), (0.94, 0.0, 1.84), -90.0),
    # KITTI's kind: an HDL-64E (data sheet: upper 32 a third of a degree apart, lower 32 half a
    # degree), at KITTI's height above the rear axle, x forward
    "beams64": Lidar(
        (*_evenly(-24.33, -8.83, 32), *_evenly(-8.33, 2.0, 32)), (0.0, 0.0, 1.73), 0.0
    ),
}

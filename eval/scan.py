"""A labeled scan as the corruptions take it and give it back: nuScenes' numbers throughout.

In: points, rings and raw labels of one keyframe. The corruptions were defined on a 32-beam LiDAR
with intensities of 0 to 255 and nuScenes' raw classes, so other scans are refused here, once.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.errors import check

NUM_RINGS = 32
GROUND = (24, 25, 26)  # raw ids: driveable surface, other flat, sidewalk
# raw ids of each mapped class whose echoes get lost: method.md 6.4, 4
ECHO_CLASSES = {
    "bicycle": (14,),
    "bus": (15, 16),
    "car": (17,),
    "construction_vehicle": (18,),
    "motorcycle": (21,),
    "trailer": (22,),
    "truck": (23,),
}
FOG, SNOW, CROSSTALK = 41, 42, 43  # raw ids of points that a corruption made


@dataclass(frozen=True)
class Scan:
    """Points, beams and raw labels, row by row."""

    points: np.ndarray  # [N, 4] float32: x, y, z in m, intensity 0..255
    ring: np.ndarray  # [N] uint8, 0..31
    labels: np.ndarray  # [N] uint8, raw lidarseg ids

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        count = len(self.points)
        check(
            self.points.shape == (count, 4)
            and self.points.dtype == np.float32
            and (self.ring.shape, self.labels.shape) == ((count,), (count,))
            and (self.ring.dtype, self.labels.dtype) == (np.uint8, np.uint8),
            "scan: points, ring, labels must be [N, 4] float32, [N] uint8, [N] uint8, got "
            f"{_say(self.points)}, {_say(self.ring)}, {_say(self.labels)}; "
            "give a scan with one ring and one raw label per point",
        )

    @property
    def range_lidar(self) -> np.ndarray:
        """Distance of every point from the sensor, [N] float64, m."""
        return np.linalg.norm(self.points[:, :3].astype(np.float64), axis=1)

    @property
    def ground_mask(self) -> np.ndarray:
        """Points labeled as ground, [N] bool."""
        return np.isin(self.labels, GROUND)

    def rows(self, chosen: np.ndarray) -> "Scan":
        """Return the chosen points (mask or positions) with their rings and labels."""
        return Scan(self.points[chosen], self.ring[chosen], self.labels[chosen])


def check_rings(scan: Scan) -> None:
    """Refuse a scan whose beams are not known.

    Raises:
        UserError: a ring outside 0..31.
    """
    top = int(scan.ring.max(initial=0))
    check(
        top < NUM_RINGS,
        f"scan: ring must be in 0..{NUM_RINGS - 1}, got {top}; the corruptions are defined on "
        "nuScenes' 32 beams, use a data set that has them",
    )


def _say(array: np.ndarray) -> str:
    return f"{list(array.shape)} {array.dtype}"

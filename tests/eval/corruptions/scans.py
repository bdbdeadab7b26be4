"""A made-up scan with known parts: flat ground rings, and a few cars and bicycles."""

import numpy as np

from eval.scan import Scan

GROUND_RAW, CAR_RAW, BICYCLE_RAW, WALL_RAW = 24, 17, 14, 28


def make_scan(num: int = 4000, seed: int = 0) -> Scan:
    """Return a scan: half ground 1.8 m below the sensor, a tenth cars, five bicycle points."""
    rng = np.random.default_rng(seed)
    azimuth, range_m = rng.uniform(-np.pi, np.pi, num), rng.uniform(4, 60, num)
    labels = np.full(num, WALL_RAW, np.uint8)
    labels[: num // 2] = GROUND_RAW
    labels[num // 2 : num // 2 + num // 10] = CAR_RAW
    labels[-5:] = BICYCLE_RAW
    z = np.where(labels == GROUND_RAW, -1.8, rng.uniform(-1, 3, num))
    flat = np.sqrt(range_m**2 - z**2)
    points = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), z, rng.uniform(1, 90, num)])
    order = rng.permutation(num)
    rings = rng.integers(0, 32, num).astype(np.uint8)
    return Scan(points.T.astype(np.float32)[order], rings, labels[order])

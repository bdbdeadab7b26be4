"""Crosstalk: some returns are noise from other sensors."""

from dataclasses import dataclass

import numpy as np

from eval.scan import CROSSTALK, Scan

NOISE = 3.0  # standard deviation in x, y, z (m) and intensity


@dataclass(frozen=True)
class Config:
    """One severity."""

    fraction: float  # of all points


# Only 0.03 is public for nuScenes; 0.07 and 0.12 are recalled from Robo3D's appendix, unverified.
SEVERITIES = {"light": Config(0.03), "moderate": Config(0.07), "heavy": Config(0.12)}


def corrupt(scan: Scan, config: Config, rng: np.random.Generator) -> Scan:
    """Return the scan with noise on some points, which become raw class 43.

    Source: method.md 6.4, 5 (Robo3D, from its description). Intensities may leave 0..255.
    """
    count = len(scan.points)
    chosen = rng.permutation(count)[: int(config.fraction * count)]
    noise = NOISE * rng.standard_normal((count, 4))
    points, labels = scan.points.copy(), scan.labels.copy()
    points[chosen] += noise[chosen].astype(np.float32)
    labels[chosen] = CROSSTALK
    return Scan(points, scan.ring, labels)

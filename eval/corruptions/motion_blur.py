"""Motion blur: the whole scan shifts, and every point jitters."""

from dataclasses import dataclass

import numpy as np

from eval.scan import Scan

JITTER = np.array([0.1, 0.1, 0.05])  # of sigma, along x, y, z
CLIP = 3.0  # of sigma, 30 to 60 standard deviations of the jitter: as published, it never acts


@dataclass(frozen=True)
class Config:
    """One severity."""

    sigma_m: float


# Only 0.20 is public for nuScenes; 0.30 and 0.40 are recalled from Robo3D's appendix, unverified.
SEVERITIES = {"light": Config(0.20), "moderate": Config(0.30), "heavy": Config(0.40)}


def corrupt(scan: Scan, config: Config, rng: np.random.Generator) -> Scan:
    """Return the scan with one shared offset and a clipped jitter per point; labels stay.

    Source: method.md 6.4, 1 (Robo3D, from its description).
    """
    offset = rng.standard_normal(3)
    jitter = np.clip(rng.standard_normal((len(scan.points), 3)) * JITTER, -CLIP, CLIP)
    points = scan.points.copy()
    points[:, :3] += (config.sigma_m * (offset + jitter)).astype(np.float32)
    return Scan(points, scan.ring, scan.labels)

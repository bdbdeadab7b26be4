"""Cross-sensor: the scan as a LiDAR with fewer beams and half the resolution would give it."""

from dataclasses import dataclass

import numpy as np

from eval.scan import NUM_RINGS, Scan


@dataclass(frozen=True)
class Config:
    """One severity."""

    step: float  # removed beams are floor(1 + step * k)


SEVERITIES = {"light": Config(4.0), "moderate": Config(2.0), "heavy": Config(1.33)}


def corrupt(scan: Scan, config: Config, rng: np.random.Generator) -> Scan:
    """Return every second of the points that are left without the removed beams.

    Args:
        scan: points in file order.
        config: 8, 16 or 24 beams go.
        rng: not drawn from.

    Source: method.md 6.4, 3 (Robo3D, from its description).
    """
    removed = np.floor(1 + config.step * np.arange(int(NUM_RINGS / config.step)))
    return scan.rows(np.flatnonzero(~np.isin(scan.ring, removed))[::2])

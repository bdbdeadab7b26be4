"""Beam missing: some lasers are dead."""

from dataclasses import dataclass

import numpy as np

from eval.scan import Scan

LOWEST, HIGHEST = 2, 28  # beams that may die


@dataclass(frozen=True)
class Config:
    """One severity."""

    num_draws: int  # with replacement: about 7.0, 12.2 and 16.1 of 27 beams are hit


SEVERITIES = {"light": Config(8), "moderate": Config(16), "heavy": Config(24)}


def corrupt(scan: Scan, config: Config, rng: np.random.Generator) -> Scan:
    """Return the scan without the points of the drawn beams.

    Source: method.md 6.4, 2 (Robo3D, from its description).
    """
    dead = rng.integers(LOWEST, HIGHEST + 1, config.num_draws)
    return scan.rows(~np.isin(scan.ring, dead))

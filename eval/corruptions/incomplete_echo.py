"""Incomplete echo: dark vehicles return only some of their points. Uses the true labels."""

from dataclasses import dataclass

import numpy as np

from eval.scan import ECHO_CLASSES, Scan

MIN_POINTS = 10  # a class must have more


@dataclass(frozen=True)
class Config:
    """One severity."""

    fraction: float  # of the points of a class


SEVERITIES = {"light": Config(0.75), "moderate": Config(0.85), "heavy": Config(0.95)}


def corrupt(scan: Scan, config: Config, rng: np.random.Generator) -> Scan:
    """Return the scan without floor(fraction * n) random points of each vehicle class.

    Source: method.md 6.4, 4 (Robo3D, from its description).
    """
    kept = np.ones(len(scan.points), bool)
    for raw_ids in ECHO_CLASSES.values():
        members = rng.permutation(np.flatnonzero(np.isin(scan.labels, raw_ids)))
        if len(members) > MIN_POINTS:
            kept[members[: int(config.fraction * len(members))]] = False
    return scan.rows(kept)

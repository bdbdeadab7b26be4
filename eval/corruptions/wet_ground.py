"""Wet ground: water mirrors the beam away; ground returns get weaker and the weakest are lost."""

from dataclasses import dataclass

import numpy as np

from eval.lidar_physics import ground_return, water_film
from eval.scan import Scan

FULL_WET_MM = 1.2  # water height from which the road's own surface no longer shows


@dataclass(frozen=True)
class Config:
    """One severity."""

    water_mm: float
    noise_floor: float  # of the noise line: weaker returns are lost


SEVERITIES = {"light": Config(0.2, 0.2), "moderate": Config(1.0, 0.3), "heavy": Config(1.2, 0.7)}


def corrupt(scan: Scan, config: Config, rng: np.random.Generator) -> Scan:
    """Return the scan over wet ground: other points first, then the ground that is still seen.

    Args:
        scan: labeled; fewer than 1000 ground points leave it unchanged.
        config: water.
        rng: not drawn from.

    Source: method.md 6.4, 7 (Hahner et al., wet ground of the snowfall simulation, and Robo3D, from
    the formulas).
    """
    ground = ground_return(scan)
    if ground is None:
        return scan
    at = ground.point_idx
    level = ground.level  # P
    reflectivity = ground.intensity / (ground.cos_angle * level)
    wetness = min(max(config.water_mm / FULL_WET_MM, 0.0), 1.0)
    film = water_film(ground.angle_rad, reflectivity)
    mixed = (1 - wetness) * reflectivity + wetness * film / ground.angle_rad
    wet = np.clip(level * ground.cos_angle * mixed, 0, ground.intensity)
    seen = wet >= config.noise_floor * ground.noise * ground.cos_angle
    points = scan.points.copy()
    points[at, 3] = np.clip(255 * wet, 0, 255)
    others = np.setdiff1d(np.arange(len(points)), at)
    return Scan(points, scan.ring, scan.labels).rows(np.concatenate([others, at[seen]]))

"""Fog: every return is damped, and where the fog's own echo is stronger, the point becomes fog."""

from dataclasses import dataclass

import numpy as np

from eval.lidar_physics import BETA_0, fog_echoes
from eval.scan import FOG, Scan

ALPHAS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.06)  # attenuation per m, drawn per scan
SPREAD_M = 10.0  # of the range of fog points


@dataclass(frozen=True)
class Config:
    """One severity."""

    beta: float  # backscatter coefficient


SEVERITIES = {"light": Config(0.008), "moderate": Config(0.05), "heavy": Config(0.2)}


def corrupt(scan: Scan, config: Config, rng: np.random.Generator) -> Scan:
    """Return the scan in fog; fog points carry raw class 41.

    Source: method.md 6.4, 6 (Hahner et al., fog simulation on real LiDAR point clouds, and Robo3D,
    from the formulas). Intensities of fog points are not clipped, as there.
    """
    alpha = float(rng.choice(ALPHAS))
    range_m, intensity = scan.range_lidar, scan.points[:, 3].astype(np.float64)
    spread = rng.uniform(-SPREAD_M, SPREAD_M, len(range_m))
    echoes = fog_echoes(alpha)
    hard = np.rint(np.exp(-2 * alpha * range_m) * intensity)
    soft = echoes.strength(range_m) * intensity * range_m**2 * config.beta / BETA_0
    is_fog = soft > hard
    points, labels = scan.points.copy(), scan.labels.copy()
    points[:, 3] = np.where(is_fog, soft, hard)
    labels[is_fog] = FOG
    # to the echo's range, then scaled by range / (range + spread)
    scale = echoes.range_m(range_m[is_fog]) / (range_m[is_fog] + spread[is_fog])
    points[is_fog, :3] *= scale[:, None].astype(np.float32)
    return Scan(points, scan.ring, labels)

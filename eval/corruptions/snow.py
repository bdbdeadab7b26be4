"""Snow: flakes in the beam take their share of it; the strongest echo wins.

Needs the true labels for the noise threshold. Rings come back as flags: 0 untouched, 1 only the
intensity changed, 2 moved to a flake.
"""

from dataclasses import dataclass

import numpy as np

from eval.lidar_physics import ground_return
from eval.scan import SNOW, Scan
from eval.snowfall import NUM_LAYOUTS, echo, scatter_flakes
from eval.snowfall import focal_loss as loss_of

NEAR_M = 0.2  # an echo this close to the target moves nothing
NOISE_FLOOR = 0.7
I_MAX = 255.0


@dataclass(frozen=True)
class Config:
    """One severity."""

    snowfall_mm_h: float
    velocity_m_s: float  # terminal velocity of the flakes
    target_keeps_power: bool = False  # True: physically right; False: comparable with Robo3D


SEVERITIES = {"light": Config(0.5, 2.0), "moderate": Config(1.0, 1.6), "heavy": Config(2.5, 1.6)}


def corrupt(scan: Scan, config: Config, rng: np.random.Generator) -> Scan:
    """Return the scan in falling snow; points that became flakes carry raw class 42.

    Source: method.md 6.4, 8 (Hahner et al., LiDAR snowfall simulation, and Robo3D, from the
    formulas). Ours: a beam without a flake keeps its return as it is, and the loss of focus that is
    taken off before the echoes are compared is put back at the range of the winner.
    """
    layout_of_ring = rng.permutation(NUM_LAYOUTS)
    range_m, intensity = scan.range_lidar, scan.points[:, 3].astype(np.float64)
    azimuth_rad = np.arctan2(scan.points[:, 1], scan.points[:, 0]).astype(np.float64)
    adjusted = np.clip(intensity - I_MAX * loss_of(scan.ring, range_m), 0, I_MAX)
    points, flags = scan.points.copy(), np.zeros(len(range_m), np.uint8)
    labels = scan.labels.copy()
    for ring in np.unique(scan.ring).tolist():
        at = np.flatnonzero(scan.ring == ring)
        number = int(layout_of_ring[ring])
        flakes = scatter_flakes(config.snowfall_mm_h, config.velocity_m_s, number)
        found = echo(flakes, azimuth_rad[at], range_m[at], adjusted[at], config.target_keeps_power)
        hit = found.num_flakes > 0
        at, peak_m, value = at[hit], found.range_m[hit], found.value[hit]
        brightness = value + I_MAX * loss_of(scan.ring[at], peak_m)
        points[at, 3] = np.clip(np.where(value > 0, brightness, 0), 0, I_MAX)
        moved = (np.abs(peak_m - range_m[at]) > NEAR_M) & (value > 0)
        flags[at] = np.where(moved, 2, 1)
        points[at[moved], :3] *= (peak_m[moved] / range_m[at[moved]])[:, None].astype(np.float32)
    labels[flags == 2] = SNOW
    kept = (flags == 2) | (points[:, 3] >= _threshold(scan, range_m))
    return Scan(points, flags, labels).rows(kept)


def _threshold(scan: Scan, range_m: np.ndarray) -> np.ndarray:
    """Return the weakest intensity [N] that is told from noise; 0 without enough ground."""
    ground = ground_return(scan)
    if ground is None:
        return np.zeros(len(range_m))
    level = I_MAX * NOISE_FLOOR * ground.noise * ground.cos_angle
    return np.polyval(np.polyfit(ground.range_m, level, 2), range_m)

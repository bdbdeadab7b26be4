"""The center line of a street: straights and arcs, joined smoothly."""

import math

import numpy as np


def draw_line(rng: np.random.Generator, length_m: float) -> np.ndarray:
    """Return a center line [L, 4] (x, y, heading, s) of straights and arcs."""
    step, curvature, heading = 0.5, [], 0.0
    count = int(length_m / step) + 1
    is_arc = rng.random() < 0.5
    while len(curvature) < count:
        stretch = rng.uniform(25, 60)
        bend = 0.0
        if is_arc:
            sign = -np.sign(heading) if abs(heading) > 0.5 else rng.choice([-1.0, 1.0])
            bend = sign / rng.uniform(55, 130)
            stretch = min(stretch, 1.2 / abs(bend))
        heading += bend * stretch
        curvature += [bend] * int(stretch / step)
        is_arc = not is_arc
    smooth = np.convolve(np.pad(curvature[:count], 12, mode="edge"), np.full(25, 1 / 25), "valid")
    angle = np.concatenate([[0.0], np.cumsum(smooth[:-1] * step)]) + rng.uniform(-math.pi, math.pi)
    x = np.concatenate([[0.0], np.cumsum(np.cos(angle[:-1]) * step)])
    y = np.concatenate([[0.0], np.cumsum(np.sin(angle[:-1]) * step)])
    return np.stack([x, y, angle, step * np.arange(count)], axis=1)

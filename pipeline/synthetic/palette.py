"""Colors and reflectances of a scene, drawn once per scene and again per object.

Train and val draw from other ranges that partly overlap, and every class's range overlaps with
others': green walls, brown crowns, grey cars on grey roads, so that color alone says little.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.parts import Color


def from_hsv(hue: float, saturation: float, value: float) -> Color:
    """Return red, green, blue in 0 .. 1; the hue is a share of the circle."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1))


@dataclass(frozen=True)
class Palette:
    """Draws colors; `is_val` selects the validation ranges."""

    rng: np.random.Generator
    is_val: bool

    def _pick(self, train: list, val: list) -> Color:
        """Draw one of (hue, saturation, value, spread of each) ranges and a color from it."""
        ranges = val if self.is_val else train
        h, s, v, dh, ds, dv = ranges[int(self.rng.integers(len(ranges)))]
        a, b, c = self.rng.uniform(-1, 1, 3)
        return from_hsv(h + dh * a, s + ds * b, v + dv * c)

    def wall(self) -> Color:
        """Return a facade color: brick, sand, grey, now and then green."""
        warm = [(0.03, 0.55, 0.5, 0.02, 0.15, 0.15), (0.09, 0.35, 0.7, 0.03, 0.15, 0.15)]
        grey = [(0.1, 0.08, 0.6, 0.1, 0.08, 0.25), (0.3, 0.35, 0.45, 0.06, 0.15, 0.15)]
        cool = [(0.58, 0.25, 0.55, 0.06, 0.15, 0.15), (0.13, 0.5, 0.68, 0.03, 0.15, 0.12)]
        olive = [(0.2, 0.4, 0.42, 0.06, 0.15, 0.12), (0.01, 0.4, 0.4, 0.02, 0.15, 0.15)]
        return self._pick(warm + grey, cool + olive + grey[:1])

    def leaves(self) -> Color:
        """Return a foliage color: green, olive, autumn brown and red."""
        green = [(0.28, 0.5, 0.38, 0.05, 0.15, 0.12), (0.2, 0.5, 0.42, 0.04, 0.15, 0.12)]
        train = green * 2 + [(0.1, 0.5, 0.45, 0.03, 0.15, 0.15)]
        val = [(0.24, 0.45, 0.4, 0.07, 0.15, 0.12), (0.06, 0.5, 0.45, 0.04, 0.15, 0.15)]
        return self._pick(train, [val[0], green[0], val[1], (0.33, 0.3, 0.3, 0.05, 0.15, 0.1)])

    def soil(self) -> Color:
        """Return a terrain color: grass, dry grass, earth, gravel."""
        grass = [(0.25, 0.45, 0.42, 0.05, 0.15, 0.1), (0.16, 0.4, 0.5, 0.03, 0.12, 0.1)]
        bare = [(0.08, 0.35, 0.42, 0.02, 0.12, 0.12), (0.1, 0.1, 0.5, 0.05, 0.08, 0.12)]
        return self._pick(grass * 2 + bare, [*grass, *bare, (0.3, 0.35, 0.36, 0.04, 0.12, 0.1)])

    def paving(self) -> Color:
        """Return a sidewalk or plaza color: grey, sand, reddish."""
        grey = (0.1, 0.06, 0.55, 0.1, 0.05, 0.16)
        train = [grey, grey, (0.09, 0.2, 0.6, 0.02, 0.1, 0.1), (0.02, 0.3, 0.48, 0.02, 0.1, 0.1)]
        return self._pick(train, [grey, (0.6, 0.08, 0.5, 0.1, 0.06, 0.15), train[2]])

    def asphalt(self) -> Color:
        """Return a road color, dark to light grey, sometimes brownish."""
        return self._pick(
            [(0.1, 0.06, 0.36, 0.1, 0.05, 0.12), (0.6, 0.07, 0.40, 0.1, 0.05, 0.1)],
            [(0.08, 0.1, 0.42, 0.05, 0.05, 0.12), (0.6, 0.05, 0.32, 0.1, 0.05, 0.08)],
        )

    def paint(self) -> Color:
        """Return a vehicle color: mostly white, grey, black; the rest any hue."""
        draw = self.rng.random()
        if draw < 0.55:
            return from_hsv(0.6, 0.05, float(self.rng.choice([0.1, 0.25, 0.45, 0.65, 0.9])))
        hue = self.rng.random()
        return from_hsv(hue, self.rng.uniform(0.35, 0.85), self.rng.uniform(0.25, 0.85))

    def cloth(self) -> Color:
        """Return a clothing color of any hue."""
        return from_hsv(self.rng.random(), self.rng.uniform(0, 0.8), self.rng.uniform(0.1, 0.9))

    def skin(self) -> Color:
        """Return a skin color."""
        return from_hsv(0.065, self.rng.uniform(0.3, 0.6), self.rng.uniform(0.3, 0.9))

    def bark(self) -> Color:
        """Return a trunk color."""
        return from_hsv(0.08, self.rng.uniform(0.15, 0.5), self.rng.uniform(0.2, 0.45))

    def reflectance(self, low: float, high: float) -> float:
        """Return a LiDAR reflectance, skewed to the low end as real returns are."""
        return float(low + (high - low) * self.rng.random() ** 1.6)

    def seed(self) -> int:
        """Return a texture seed."""
        return int(self.rng.integers(1, 1 << 20))

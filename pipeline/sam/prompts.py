"""Where the mask generator asks: a grid of points over the image and over its crops.

In: the image's size and the settings. Out: crops, and for each the points in its own pixels.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from pipeline.sam.settings import Settings


@dataclass(frozen=True)
class Crop:
    """A part of the image that is segmented like an image of its own."""

    left: int
    top: int
    right: int  # exclusive
    bottom: int
    layer: int  # 0 = the whole image

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left


def crops_of(height: int, width: int, settings: Settings) -> list[Crop]:
    """Return the whole image, then 4, 16, ... overlapping crops per further layer.

    Source: Kirillov et al. 2023, and the sizes of the package's mask generator: crops of layer i
    overlap by crop_overlap / 2^(i - 1) of the short side, column by column from the left.
    """
    crops = [Crop(0, 0, width, height, 0)]
    for layer in range(1, settings.crop_layers + 1):
        count = 2**layer
        overlap = int(settings.crop_overlap * min(height, width) * (2 / count))
        wide, high = (math.ceil((side + overlap * (count - 1)) / count) for side in (width, height))
        starts = itertools.product(range(count), repeat=2)
        for column, row in starts:
            left, top = column * (wide - overlap), row * (high - overlap)
            crops.append(Crop(left, top, min(left + wide, width), min(top + high, height), layer))
    return crops


def grid_points(crop: Crop, settings: Settings) -> np.ndarray:
    """Return the prompts of a crop, [P, 2] float64, x and y in its own pixels, row by row."""
    side = int(settings.points_per_side / settings.crop_points_divisor**crop.layer)
    along = np.linspace(1 / (2 * side), 1 - 1 / (2 * side), side)
    x, y = np.meshgrid(along, along)
    height, width = crop.size
    return np.stack([x.ravel(), y.ravel()], axis=1) * np.array([width, height])

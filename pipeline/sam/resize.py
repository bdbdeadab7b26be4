"""The way from a mask of the decoder to the image, as weights per row and per column.

The package enlarges every mask to the padded square (x4), cuts the padding off and resizes the rest
to the image, both times bilinearly. Along one side the two are one sparse matrix of three weights a
row, so any pixel of any mask can be had without the others.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

TAPS = 3


@dataclass(frozen=True)
class Side:
    """How one side of an image is made of one side of a mask: out[i] = sum of weights * mask."""

    first: np.ndarray  # [S] int32, first mask pixel
    weights: np.ndarray  # [S, TAPS] float32, of it and the next two

    def matrix(self, mask_size: int) -> np.ndarray:
        """Return the same as a matrix [S, mask_size] float32."""
        dense = np.zeros((len(self.first), mask_size), np.float32)
        np.put_along_axis(dense, self.first[:, None] + np.arange(TAPS), self.weights, 1)
        return dense


@dataclass(frozen=True)
class Resize:
    """Both sides of an image or crop."""

    rows: Side
    columns: Side
    mask_size: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that come out."""
        return len(self.rows.first), len(self.columns.first)


def scaled_size(height: int, width: int, image_size: int) -> tuple[int, int]:
    """Return height and width with the long side at image_size, each rounded half up."""
    scale = image_size / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def shrink_image(image_rgb: np.ndarray, image_size: int) -> np.ndarray:
    """Return the image [h, w, 3] uint8 with that long side, Pillow's antialiased bilinear."""
    height, width = scaled_size(*image_rgb.shape[:2], image_size)
    if image_rgb.shape[:2] == (height, width):
        return image_rgb
    small = Image.fromarray(image_rgb).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small)


def resize_of(height: int, width: int, image_size: int, mask_size: int) -> Resize:
    """Return the way from masks [mask_size, mask_size] to an image of this size."""
    inner = scaled_size(height, width, image_size)
    rows, columns = (
        _side(outer, part, image_size, mask_size)
        for outer, part in zip((height, width), inner, strict=True)
    )
    return Resize(rows, columns, mask_size)


def _side(size: int, inner: int, image_size: int, mask_size: int) -> Side:
    """Return the product of mask -> square and (cut) square -> image along one side."""
    square = _bilinear(image_size, mask_size)[:inner]
    dense = _bilinear(size, inner) @ square  # [size, mask_size] float64
    first = np.minimum((dense > 0).argmax(1), mask_size - TAPS).astype(np.int32)
    weights = np.take_along_axis(dense, first[:, None] + np.arange(TAPS), 1)
    return Side(first, weights.astype(np.float32))


def _bilinear(size: int, source: int) -> np.ndarray:
    """Return the matrix [size, source] of a bilinear resize with pixel centers aligned."""
    place = np.clip((np.arange(size) + 0.5) * (source / size) - 0.5, 0, None)
    low = np.minimum(place.astype(int), source - 1)
    high = np.minimum(low + 1, source - 1)
    share = place - low
    matrix = np.zeros((size, source))
    rows = np.arange(size)
    np.add.at(matrix, (rows, low), 1 - share)
    np.add.at(matrix, (rows, high), share)
    return matrix

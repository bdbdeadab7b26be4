"""SLIC regions of an image: scikit-image's steps, coarse to fine on large images.

In: an RGB image. Out: connected regions that cover it. An image whose short side is 600 or more is
clustered at a quarter and at half its size first, where the smoothing leaves nothing smaller than a
pixel, and at native size once: most of the speed, none of the quality (docs/benchmarks.md).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from skimage.util import regular_grid

from pipeline.geometry import store_size
from pipeline.image import resize_image
from pipeline.slic_clusters import MAX_SIZE_FACTOR, MIN_SIZE_FACTOR, assign, cluster, connect

_LARGE = 600  # short side, pixels; the size from which stores are scaled too
_HALF_ROUNDS = 4  # after ten at a quarter of the size
_TRUNCATE = 4  # the smoothing kernel's half width, in sigmas
_HALVING_VARIANCE = 0.92  # px^2 that halving (1/4) and enlarging again (2/3) smooth already


@dataclass(frozen=True)
class SlicConfig:
    """Defaults from SLidR superpixel_segmenter.py."""

    n_segments: int = 150  # regions asked for; SLIC returns about as many
    compactness: float = 6.0  # weight of nearness against color (CIELAB)
    sigma: float = 3.0  # px of the native image, Gaussian smoothing before clustering
    coarse_to_fine: bool = True  # start large images at a quarter of their size


def slic_regions(image_rgb: np.ndarray, config: SlicConfig) -> np.ndarray:
    """Return SLIC regions [H, W] uint16, ids 1..S, covering the whole image.

    Args:
        image_rgb: [H, W, 3] uint8, native size.
        config: settings.

    Returns:
        What scikit-image returns with start_label=0 as SLidR calls it, plus 1 so that 0 stays none;
        up to rounding where no coarser size is used, else other minima of the same sum.

    Source: Achanta et al. 2012; scikit-image's order of steps (BSD-3-Clause), restated.
    """
    height, width = image_rgb.shape[:2]
    centers, step, mean_size = _grid(height, width, config.n_segments)
    if config.coarse_to_fine and min(height, width) >= _LARGE:
        labels = _coarse_to_fine(image_rgb, centers, step, config)
    else:
        planes = lab_planes(image_rgb, config.sigma) / np.float32(config.compactness)
        labels, _ = cluster(planes, centers, step)
    limits = int(MIN_SIZE_FACTOR * mean_size), int(MAX_SIZE_FACTOR * mean_size)
    return (connect(labels, *limits) + 1).astype(np.uint16)


def _coarse_to_fine(
    image_rgb: np.ndarray, centers: np.ndarray, step: float, config: SlicConfig
) -> np.ndarray:
    """Return the center of each pixel [H, W], centers found at a quarter and half the size."""
    height, width = image_rgb.shape[:2]
    image = resize_image(image_rgb, *store_size(height, width, 0.5))
    sigma = math.sqrt(max(config.sigma**2 - _HALVING_VARIANCE, 0) / 4)
    half = lab_planes(image, sigma) / np.float32(config.compactness)
    quarter = _resized(half, *store_size(*image.shape[:2], 0.5), cv2.INTER_AREA)
    _, centers = cluster(quarter, _at_size(centers, 1 / 4), step / 4)
    _, centers = cluster(half, _at_size(centers, 2), step / 2, _HALF_ROUNDS)
    whole = _resized(half, height, width, cv2.INTER_LINEAR)
    return assign(whole, _at_size(centers, 2), step)


def _at_size(centers: np.ndarray, factor: float) -> np.ndarray:
    """Return centers [S, 5] with their places in an image of another size."""
    moved = centers.copy()
    moved[:, :2] = (centers[:, :2] + 0.5) * factor - 0.5  # pixel centers are at integers
    return moved


def _resized(planes: np.ndarray, height: int, width: int, interpolation: int) -> np.ndarray:
    """Return planes [3, h, w] at another size [3, H, W]."""
    out = np.empty((len(planes), height, width), np.float32)
    for plane, target in zip(planes, out, strict=True):
        cv2.resize(plane, (width, height), dst=target, interpolation=interpolation)
    return out


def lab_planes(image_rgb: np.ndarray, sigma: float) -> np.ndarray:
    """Return CIELAB [3, H, W] float32 of an image stretched to 0 .. 1 and smoothed.

    Args:
        image_rgb: [H, W, 3] uint8.
        sigma: px; 0 = none.
    """
    low, high = int(image_rgb.min()), int(image_rgb.max())
    table = ((np.arange(256) - low) / max(high - low, 1)).clip(0, 1).astype(np.float32)
    lab = cv2.cvtColor(table[image_rgb], cv2.COLOR_RGB2Lab)
    if sigma > 0:
        side = 2 * int(_TRUNCATE * sigma + 0.5) + 1
        lab = cv2.GaussianBlur(lab, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
    return np.ascontiguousarray(lab.transpose(2, 0, 1))


def _grid(height: int, width: int, num_segments: int) -> tuple[np.ndarray, float, float]:
    """Return first centers [S, 5], the larger grid step in pixels, and pixels a center."""
    slices = regular_grid((1, height, width), num_segments)
    y, x = np.meshgrid(np.arange(height)[slices[1]], np.arange(width)[slices[2]], indexing="ij")
    centers = np.zeros((y.size, 5), np.float32)
    centers[:, 0], centers[:, 1] = y.ravel(), x.ravel()
    step = max(float(s.step) if s.step is not None else 1.0 for s in slices)
    return centers, step, height * width / len(centers)

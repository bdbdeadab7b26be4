"""The superpixel sources by name, and what each module offers.

A source module has `VERSION`, a frozen `Config`, `MAX_CATEGORIES` (0 = none) and
`load(config, device)`, which returns a `Source`.
"""

from typing import Protocol

import numpy as np

from pipeline.regions import Segmentation
from pipeline.tables import Table
from pipeline.types import Camera


class Source(Protocol):
    """A loaded source: models are in memory, images come one by one."""

    def segment(self, image_rgb: np.ndarray, camera: Camera) -> Segmentation:
        """Return the superpixels of a native image [H, W, 3] uint8 of that camera."""
        ...


SOURCES = Table(
    kind="superpixel source",
    modules={
        "slic": "pipeline.superpixels.slic",
        "images": "pipeline.superpixels.images",
        "oracle": "pipeline.superpixels.images",
    },
    install={"slic": "run 'pip install scikit-image'"},
)

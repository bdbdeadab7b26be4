"""SLIC superpixels: color and nearness only, no model; the baseline of SLidR and of Seal.

In: a native RGB image. Out: about 150 regions that cover it.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.regions import Segmentation
from pipeline.slic_regions import SlicConfig, slic_regions
from pipeline.types import Camera

VERSION = 2
MAX_CATEGORIES = 0
Config = SlicConfig


@dataclass(frozen=True)
class Slic:
    """The loaded source."""

    config: SlicConfig

    def segment(self, image_rgb: np.ndarray, camera: Camera) -> Segmentation:
        """Return SLIC regions, ids 1..S covering the whole image.

        Args:
            image_rgb: [H, W, 3] uint8, native size.
            camera: not needed by this source.
        """
        return Segmentation(slic_regions(image_rgb, self.config))


def load(config: SlicConfig, device: str) -> Slic:
    """Return the source; it runs on the CPU whatever the device."""
    return Slic(config)

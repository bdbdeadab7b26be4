"""SLIC superpixels: color and nearness only, no model; the baseline of SLidR and of Seal.

In: a native RGB image. Out: about 150 regions that cover it. scikit-image's own implementation is
called, not a faster one, because the ids are compared with SLidR's published ones.
"""

from dataclasses import dataclass

import numpy as np
from skimage.segmentation import slic

from pipeline.regions import Segmentation
from pipeline.types import Camera

VERSION = 1
MAX_CATEGORIES = 0


@dataclass(frozen=True)
class Config:
    """Parameters of skimage.segmentation.slic; defaults from SLidR superpixel_segmenter.py."""

    n_segments: int = 150  # regions asked for; SLIC returns about as many
    compactness: float = 6.0  # weight of nearness against color (CIELAB)
    sigma: float = 3.0  # px, Gaussian smoothing before clustering


@dataclass(frozen=True)
class Slic:
    """The loaded source."""

    config: Config

    def segment(self, image_rgb: np.ndarray, camera: Camera) -> Segmentation:
        """Return SLIC regions, ids 1..S covering the whole image.

        Args:
            image_rgb: [H, W, 3] uint8, native size.
            camera: not needed by this source.

        Returns:
            What skimage returns with start_label=0 as SLidR calls it, plus 1 so that 0 stays none.
        """
        regions = slic(
            image_rgb,
            n_segments=self.config.n_segments,
            compactness=self.config.compactness,
            sigma=self.config.sigma,
            start_label=0,
        )
        return Segmentation((regions + 1).astype(np.uint16))


def load(config: Config, device: str) -> Slic:
    """Return the source; it runs on the CPU whatever the device."""
    return Slic(config)

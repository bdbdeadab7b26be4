"""The superpixel sources by name, and what each module offers.

A source module has `VERSION`, a frozen `Config`, `MAX_CATEGORIES` (0 = none) and
`load(config, device)`, which returns a `Source`. Where it needs files of the user's, it also has
`MACHINE_FIELDS` (config that the store does not record), `identify(config)` (what it records of
those files instead), and `check_config(config)` or `missing(config)`; where a data set has files of
its own, `for_dataset(config, dataset)`, which fills in what the user left open.
"""

from collections.abc import Iterable, Sequence
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


def segment_images(
    source: Source, images_rgb: Iterable[np.ndarray], cameras: Sequence[Camera]
) -> list[Segmentation]:
    """Return the superpixels of a frame's images: together where the source can, else one by one.

    Args:
        source: it can where it has `segment_images(images_rgb, cameras)`.
        images_rgb: native images, [H, W, 3] uint8 each, asked for one by one.
        cameras: theirs.
    """
    if hasattr(source, "segment_images"):
        return source.segment_images(images_rgb, cameras)
    pairs = zip(images_rgb, cameras, strict=True)
    return [source.segment(image, camera) for image, camera in pairs]


SOURCES = Table(
    kind="superpixel source",
    modules={
        "slic": "pipeline.superpixels.slic",
        "images": "pipeline.superpixels.images",
        "oracle": "pipeline.superpixels.images",
        "sam": "pipeline.superpixels.sam",
        "seem": "pipeline.superpixels.seem",
        "xdecoder": "pipeline.superpixels.xdecoder",
        "openseed": "pipeline.superpixels.openseed",
    },
    install={
        "slic": "run 'pip install scikit-image'",
        "sam": "run 'pip install --no-deps segment-anything'",
    },
)

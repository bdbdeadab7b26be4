"""OpenSeeD superpixels: its panoptic segments.

In: a native RGB image. Out: segments with COCO panoptic classes; pixels of no segment have id 0.
Seal never published its settings; these are OpenSeeD's own, on native images as for SEEM.
"""

from dataclasses import dataclass

from pipeline.xdecoder import segmenter
from pipeline.xdecoder.family import OPENSEED
from pipeline.xdecoder.segmenter import Published, Segmenter, Settings

VERSION = 1
MAX_CATEGORIES = segmenter.MAX_SEGMENTS
MACHINE_FIELDS = segmenter.MACHINE_FIELDS
PUBLISHED = Published(
    variable="OPENSEED_CHECKPOINT",
    files=("model_state_dict_swint_51.2ap.pt",),
    url="https://github.com/IDEA-Research/OpenSeeD/releases/download/openseed/"
    "model_state_dict_swint_51.2ap.pt",
)


@dataclass(frozen=True)
class Config(Settings):
    """Thresholds: OpenSeeD's configuration."""

    object_threshold: float = OPENSEED.object_threshold
    overlap_threshold: float = OPENSEED.overlap_threshold


def load(config: Config, device: str) -> Segmenter:
    """Return the source with its model in memory; errors as `segmenter.load`."""
    return segmenter.load(config, device, OPENSEED, PUBLISHED)


def check_config(config: Config) -> None:
    """Refuse a checkpoint that does not fit; errors as `segmenter.check_checkpoint`."""
    segmenter.check_checkpoint(config, OPENSEED, PUBLISHED)


def identify(config: Config) -> dict[str, str]:
    """Return the checkpoint's hash, which the store records; errors as `segmenter.identify`."""
    return segmenter.identify(config, OPENSEED, PUBLISHED)


def missing(config: Config) -> str | None:
    """Return what keeps the source from running here, or None."""
    return segmenter.missing(config, OPENSEED, PUBLISHED)

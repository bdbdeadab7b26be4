"""SEEM superpixels: panoptic segments of "Segment Everything Everywhere All at Once".

In: a native RGB image. Out: segments with COCO panoptic classes; pixels of no segment have id 0.
Seal's own settings by default: Focal-L v1, native images, thresholds 0.4 and 0.8.
"""

from dataclasses import dataclass

from pipeline.xdecoder import segmenter
from pipeline.xdecoder.family import SEEM
from pipeline.xdecoder.segmenter import Published, Segmenter, Settings

VERSION = 1
MAX_CATEGORIES = segmenter.MAX_SEGMENTS
MACHINE_FIELDS = segmenter.MACHINE_FIELDS
PUBLISHED = Published(
    variable="SEEM_CHECKPOINT",
    files=("seem_focall_v1.pt", "seem_focall_v0.pt", "seem_focalt_v2.pt", "seem_focalt_v1.pt"),
    url="https://huggingface.co/xdecoder/SEEM/resolve/main/seem_focall_v1.pt",
)


@dataclass(frozen=True)
class Config(Settings):
    """Thresholds: Seal ran SEEM with 0.4 and 0.8 (method.md 1.3)."""

    object_threshold: float = SEEM.object_threshold
    overlap_threshold: float = SEEM.overlap_threshold


def load(config: Config, device: str) -> Segmenter:
    """Return the source with its model in memory; errors as `segmenter.load`."""
    return segmenter.load(config, device, SEEM, PUBLISHED)


def check_config(config: Config) -> None:
    """Refuse a checkpoint that does not fit; errors as `segmenter.check_checkpoint`."""
    segmenter.check_checkpoint(config, SEEM, PUBLISHED)


def identify(config: Config) -> dict[str, str]:
    """Return the checkpoint's hash, which the store records; errors as `segmenter.identify`."""
    return segmenter.identify(config, SEEM, PUBLISHED)


def missing(config: Config) -> str | None:
    """Return what keeps the source from running here, or None."""
    return segmenter.missing(config, SEEM, PUBLISHED)

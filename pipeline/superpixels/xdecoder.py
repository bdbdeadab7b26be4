"""X-Decoder superpixels: its panoptic segments.

In: a native RGB image. Out: segments with COCO panoptic classes; pixels of no segment have id 0.
Seal never published its settings; these are X-Decoder's own, on native images as for SEEM.
"""

from dataclasses import dataclass

from pipeline.xdecoder import segmenter
from pipeline.xdecoder.family import XDECODER
from pipeline.xdecoder.segmenter import Published, Segmenter, Settings

VERSION = 1
MAX_CATEGORIES = segmenter.MAX_SEGMENTS
MACHINE_FIELDS = segmenter.MACHINE_FIELDS
PUBLISHED = Published(
    variable="XDECODER_CHECKPOINT",
    files=("xdecoder_focall_last.pt", "xdecoder_focalt_last.pt"),
    url="https://huggingface.co/xdecoder/X-Decoder/resolve/main/xdecoder_focall_last.pt",
)


@dataclass(frozen=True)
class Config(Settings):
    """Thresholds: X-Decoder's configurations."""

    object_threshold: float = XDECODER.object_threshold
    overlap_threshold: float = XDECODER.overlap_threshold


def load(config: Config, device: str) -> Segmenter:
    """Return the source with its model in memory; errors as `segmenter.load`."""
    return segmenter.load(config, device, XDECODER, PUBLISHED)


def check_config(config: Config) -> None:
    """Refuse a checkpoint that does not fit; errors as `segmenter.check_checkpoint`."""
    segmenter.check_checkpoint(config, XDECODER, PUBLISHED)


def identify(config: Config) -> dict[str, str]:
    """Return the checkpoint's hash, which the store records; errors as `segmenter.identify`."""
    return segmenter.identify(config, XDECODER, PUBLISHED)


def missing(config: Config) -> str | None:
    """Return what keeps the source from running here, or None."""
    return segmenter.missing(config, XDECODER, PUBLISHED)

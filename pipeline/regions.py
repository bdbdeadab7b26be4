"""What a superpixel source returns for one image, and the clean-ups any source may ask for."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Segmentation:
    """Superpixels of one native image.

    Ids begin at 1. They have gaps where SAM painted a mask over entirely, and where imported ones
    keep the numbers of their file, so that an export gives the file back.
    """

    ids: np.ndarray  # [H, W] uint16, 0 = none
    category: np.ndarray | None = None  # [S + 1] int16 by id, slot 0 = -1; None = source knows none

    def __post_init__(self) -> None:
        """Check what a source hands over, once, where it leaves the source."""
        if self.ids.ndim != 2 or self.ids.dtype != np.uint16:
            raise ValueError(
                f"superpixel ids must be uint16 [H, W], got {self.ids.dtype} {list(self.ids.shape)}"
            )
        if self.category is not None and len(self.category) <= self.ids.max(initial=0):
            raise ValueError(
                f"category must have one slot per id up to {self.ids.max()}, "
                f"got {len(self.category)} slots"
            )

    @property
    def num_segments(self) -> int:
        """Number of distinct ids, 0 left out."""
        return int(np.count_nonzero(np.bincount(self.ids.ravel(), minlength=1)[1:]))


def split_large(ids: np.ndarray, regions: np.ndarray, largest: float) -> np.ndarray:
    """Return ids in which large segments are cut along the borders of finer regions.

    A source that finds whole objects gives the road and the houses one segment each, and so few
    means to contrast: on the made-up city true object masks pretrain worse than SLIC until they
    are cut (docs/benchmarks.md; SLidR's authors found 20 segments an image worse than 150).

    Args:
        ids: [H, W] uint16, 0 = none, which is never cut.
        regions: [H, W] uint16, 1..S, finer regions that cover the image (SLIC).
        largest: a segment with a larger share of the image is cut, 0 .. 1.

    Returns:
        [H, W] uint16, ids 1.. without gaps in the order of (segment, region). A piece with less
        than a quarter of the mean region's pixels stays with the rest of its segment.
    """
    key = ids.astype(np.int64) * (int(regions.max()) + 1)  # region 0 = the rest of the segment
    pixels = np.bincount(ids.ravel())
    is_large = pixels > largest * ids.size
    is_large[0] = False
    cut = key + np.where(is_large[ids], regions, 0)
    _, inverse, counts = np.unique(cut, return_inverse=True, return_counts=True)
    is_sliver = counts < ids.size / len(np.unique(regions)) / 4
    cut = np.where(is_sliver[inverse.reshape(ids.shape)], key, cut)
    values, inverse = np.unique(cut, return_inverse=True)
    has_none = values[0] == 0
    return (inverse.reshape(ids.shape) + (not has_none)).astype(np.uint16)


def clean(
    ids: np.ndarray,
    image_rgb: np.ndarray,
    drop_below: int = 0,
    fill: bool = False,
    split_above: float = 0.0,
) -> np.ndarray:
    """Return ids [H, W] uint16 after the clean-ups asked for, in this order; none by default.

    Args:
        ids: [H, W] uint16, 0 = none.
        image_rgb: [H, W, 3] uint8, only to cut large segments.
        drop_below: px; smaller segments become 0.
        fill: uncovered pixels join the nearest segment.
        split_above: share of the image above which SLIC cuts a segment; 0 = never.
    """
    if drop_below:
        ids = drop_small(ids, drop_below)
    if fill:
        ids = fill_uncovered(ids)
    if split_above:
        from pipeline.slic_regions import SlicConfig, slic_regions  # needs scikit-image

        ids = split_large(ids, slic_regions(image_rgb, SlicConfig()), split_above)
    return ids


def drop_small(ids: np.ndarray, least_px: int) -> np.ndarray:
    """Return ids [H, W] uint16 without segments of fewer pixels; the others keep their order.

    Ids come out as 1.. without gaps: an id that lost all its pixels to others goes too.
    """
    pixels = np.bincount(ids.ravel(), minlength=1)
    stays = pixels >= max(least_px, 1)
    stays[0] = False
    return np.where(stays, np.cumsum(stays), 0).astype(np.uint16)[ids]


def fill_uncovered(ids: np.ndarray) -> np.ndarray:
    """Return ids [H, W] uint16 in which every 0 has become the id of the nearest other pixel.

    Distances are those of OpenCV's 5 x 5 approximation, at most some percent off; an image without
    any segment stays as it is.
    """
    if ids.all() or not ids.any():
        return ids
    _, nearest = cv2.distanceTransformWithLabels(
        (ids == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    id_of = np.zeros(int(nearest.max()) + 1, np.uint16)
    covered = ids > 0
    id_of[nearest[covered]] = ids[covered]
    return id_of[nearest]

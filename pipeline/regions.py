"""What a superpixel source returns for one image, and the cut of segments that are too large."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Segmentation:
    """Superpixels of one native image.

    Ids of a source of ours run 1..S without gaps; imported ones keep the numbers of their file,
    so that an export gives the file back, and may have gaps.
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

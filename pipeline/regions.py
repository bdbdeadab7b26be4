"""What every superpixel source returns for one image."""

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

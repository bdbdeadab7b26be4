"""How many superpixels images have, in one line, and whether that is a sane number.

SLidR's authors found about 150 an image best and 20 harmful: few segments are few means to contrast
(on the made-up city true object masks, 46 an image, do worse than SLIC: docs/benchmarks.md).
"""

from collections.abc import Sequence

import numpy as np

FEW = 30  # median below which the line says so


def describe_counts(counts: Sequence[int]) -> str:
    """Return '112 segments an image (median; 5 % have below 40, 5 % above 260)'.

    Args:
        counts: one per image, none of them is ''.
    """
    if not len(counts):
        return ""
    low, median, high = np.percentile(counts, (5, 50, 95))
    line = (
        f"{median:.0f} segments an image (median; 5 % have below {low:.0f}, 5 % above {high:.0f})"
    )
    if median < FEW:
        line += ", few: about 150 serve best; --set split_above=0.02 cuts large ones where offered"
    return line

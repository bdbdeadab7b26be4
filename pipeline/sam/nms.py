"""Non-maximum suppression on boxes: of two that overlap much, the one with the lower score goes."""

import numba
import numpy as np


def keep_boxes(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return positions of the boxes that stay, by falling score; ties keep their order.

    Args:
        boxes: [K, 4], left, top, right, bottom.
        scores: [K].
        threshold: a box goes whose IoU with one that stays is above it.
    """
    order = np.argsort(-scores, kind="stable")
    stays = _suppress(boxes[order].astype(np.float32), threshold)
    return order[stays]


@numba.njit(cache=True, nogil=True)
def _suppress(boxes, threshold):
    """Return which boxes [K, 4] float32 stay, best first."""
    count = len(boxes)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    stays = np.ones(count, np.bool_)
    zero = np.float32(0)
    for i in range(count):
        if not stays[i]:
            continue
        for j in range(i + 1, count):
            if not stays[j]:
                continue
            wide = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
            high = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
            both = max(zero, wide) * max(zero, high)
            either = area[i] + area[j] - both
            if both > threshold * either:
                stays[j] = False
    return stays

"""SLIC's clustering and its clean-up, in numba: pixels to the nearest of a grid of centers.

In: the smoothed CIELAB planes of an image. Out: connected regions that cover it. The steps and
their order are scikit-image's (the library whose ids SLidR published); float32 instead of float64
and rows of pixels at a time make it an order of magnitude faster (docs/benchmarks.md).
"""

import numba
import numpy as np

NUM_ROUNDS = 10  # scikit-image's
MIN_SIZE_FACTOR = 0.5  # of the mean region; a smaller piece joins a neighbor
MAX_SIZE_FACTOR = 3.0  # of the mean region; a piece is cut off there
_WINDOW = 2.0  # a center reaches this many grid steps along each axis


def cluster(
    planes: np.ndarray, centers: np.ndarray, step: float, num_rounds: int = NUM_ROUNDS
) -> tuple[np.ndarray, np.ndarray]:
    """Return the center that each pixel belongs to, and where the centers came to lie.

    Args:
        planes: [3, H, W] float32, CIELAB divided by the compactness.
        centers: [S, 5] float32, y and x in pixels, and color; with all colors 0 the first round
            goes by place alone.
        step: distance of the grid's centers, pixels: the unit of nearness.
        num_rounds: of giving pixels to centers and moving these; fewer if nothing changes.

    Returns:
        labels [H, W] int32 in 0 .. S - 1, not yet connected; centers [S, 5] float32.

    Source: Achanta et al. 2012; squared distances, ties to the first center, as scikit-image does.
    """
    centers = centers.copy()
    labels = np.zeros(planes.shape[1:], np.int32)
    for round_ in range(num_rounds):
        before, labels = labels, assign(planes, centers, step)
        if round_ and np.array_equal(before, labels):
            break
        sums = np.zeros((len(centers), 6))
        _add_up(planes, labels, sums)
        is_used = sums[:, 5] > 0
        centers[is_used] = sums[is_used, :5] / sums[is_used, 5:]
    return labels, centers


def assign(planes: np.ndarray, centers: np.ndarray, step: float) -> np.ndarray:
    """Return the nearest center [H, W] int32 of every pixel, in place and color.

    Args:
        planes: [3, H, W] float32.
        centers: [S, 5] float32, y and x in pixels, and color.
        step: the unit of nearness, pixels.
    """
    labels = np.zeros(planes.shape[1:], np.int32)
    nearest = np.full(planes.shape[1:], np.inf, np.float32)
    for number in range(len(centers)):
        _claim(planes, centers[number], np.int32(number), np.float32(step), nearest, labels)
    return labels


@numba.njit(cache=True, fastmath=True, error_model="numpy")
def _claim(planes, center, number, step, nearest, labels):
    """Give a center the pixels of its window that are nearer to it than to those before."""
    _, height, width = planes.shape
    reach = np.float32(_WINDOW) * step
    top, bottom = max(int(center[0] - reach), 0), min(int(center[0] + reach) + 1, height)
    left, right = max(int(center[1] - reach), 0), min(int(center[1] + reach) + 1, width)
    weight = np.float32(1) / (step * step)
    light, green_red, blue_yellow = center[2], center[3], center[4]
    along_x = np.empty(max(right - left, 0), np.float32)
    for i in range(len(along_x)):
        dx = center[1] - np.float32(left + i)
        along_x[i] = dx * dx * weight
    for y in range(top, bottom):
        dy = center[0] - np.float32(y)
        base = dy * dy * weight
        row_l, row_a = planes[0, y, left:right], planes[1, y, left:right]
        row_b = planes[2, y, left:right]
        row_nearest, row_labels = nearest[y, left:right], labels[y, left:right]
        for i in range(len(along_x)):  # slices from 0, so that the compiler makes vectors of it
            dl, da, db = row_l[i] - light, row_a[i] - green_red, row_b[i] - blue_yellow
            distance = base + along_x[i] + dl * dl + da * da + db * db
            is_nearer = distance < row_nearest[i]
            row_nearest[i] = distance if is_nearer else row_nearest[i]
            row_labels[i] = number if is_nearer else row_labels[i]


@numba.njit(cache=True, error_model="numpy")
def _add_up(planes, labels, sums):
    """Add up place, color and number of each label's pixels."""
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            total = sums[labels[y, x]]
            total[0] += y
            total[1] += x
            total[2] += planes[0, y, x]
            total[3] += planes[1, y, x]
            total[4] += planes[2, y, x]
            total[5] += 1.0


@numba.njit(cache=True)
def connect(labels: np.ndarray, min_size: int, max_size: int) -> np.ndarray:
    """Return regions without islands, numbered 0, 1, .. in the order of their first pixel.

    Args:
        labels: [H, W] int32.
        min_size: a connected piece with fewer pixels joins the region next to it.
        max_size: a piece is cut off at so many pixels; the rest is a piece of its own.

    Returns:
        [H, W] int32 without gaps.

    Source: the rule of scikit-image's enforce_connectivity (4 neighbors; the last region touched
    wins), restated.
    """
    height, width = labels.shape
    given, found = labels.ravel(), np.full(height * width, -1, np.int32)
    queue = np.empty(max(max_size, 1), np.int64)
    number = 0
    for first in range(height * width):
        if found[first] >= 0:
            continue
        label, beside, size, done = given[first], 0, 1, 0
        found[first] = number
        queue[0] = first
        while done < size < max_size:
            here = queue[done]
            x = here % width
            for side in range(4):
                if side == 0 and x + 1 < width:
                    to = here + 1
                elif side == 1 and x > 0:
                    to = here - 1
                elif side == 2 and here + width < height * width:
                    to = here + width
                elif side == 3 and here >= width:
                    to = here - width
                else:
                    continue
                if found[to] == -1:
                    if given[to] == label and size < max_size:
                        found[to] = number
                        queue[size] = to
                        size += 1
                elif found[to] != number:
                    beside = found[to]
            done += 1
        if size < min_size:
            for k in range(size):
                found[queue[k]] = beside
        else:
            number += 1
    return found.reshape(height, width)

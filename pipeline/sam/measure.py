"""What full-size masks are like, and painting them, without ever making one (CPU).

In: masks of the decoder, and the way to the image (resize.py). A pixel is a mean of nine mask
pixels, so outside the rows and columns in which the mask passes a threshold no pixel does: only the
rectangle inside is computed, row by row, and only counts are kept. measure_torch.py is the plain
twin, and what a GPU runs.
"""

from dataclasses import dataclass

import numba
import numpy as np

from pipeline.sam.resize import TAPS, Resize


@dataclass(frozen=True)
class Measured:
    """Counts over the full-size pixels of K masks."""

    above: np.ndarray  # [K, 3] int32: pixels above +offset, above 0, above -offset
    boxes: np.ndarray  # [K, 4] int32: first column and row, last column and row above 0; 0 if none


def measure(logits: np.ndarray, resize: Resize, offset: float) -> Measured:
    """Return counts and boxes of masks [K, m, m] float32 at the image's size."""
    rows, columns = resize.rows, resize.columns
    above = np.zeros((len(logits), 3), np.int32)
    boxes = np.zeros((len(logits), 4), np.int32)
    _measure(
        logits, rows.first, rows.weights, columns.first, columns.weights,
        np.float32(offset), above, boxes,
    )  # fmt: skip
    return Measured(above, boxes)


def paint(ids: np.ndarray, value: int, logits: np.ndarray, resize: Resize, box: np.ndarray) -> None:
    """Set the pixels of one mask [m, m] to a value, in place.

    Args:
        ids: [H, W] uint16, the image's or a crop's part of it.
        value: 1 .. 65535.
        logits: float32.
        resize: to the size of `ids`.
        box: [4], as `measure` returns it.
    """
    rows, columns = resize.rows, resize.columns
    _paint(
        ids, np.uint16(value), logits, rows.first, rows.weights, columns.first, columns.weights,
        *(int(side) for side in box),
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _measure(logits, row_first, row_weights, col_first, col_weights, offset, above, boxes):
    num_masks, size, _ = logits.shape
    height, width = len(row_first), len(col_first)
    wide = np.empty((size, width), np.float32)
    hit = np.empty(width, np.uint8)
    for k in range(num_masks):
        mask = logits[k]
        top, bottom, left, right = _extent(mask, -offset)
        if top > bottom:
            continue
        start, stop = _reach(col_first, left, right)
        _widen(mask, wide, top, min(bottom, size - 1), col_first, col_weights, start, stop)
        hit[:] = 0
        first_row, last_row = height, -1
        high = zero = low = 0
        for i in range(height):
            f = row_first[i]
            if f + TAPS - 1 < top or f > bottom:
                continue
            a, b, c = row_weights[i, 0], row_weights[i, 1], row_weights[i, 2]
            row_a, row_b, row_c = wide[f], wide[f + 1], wide[f + 2]
            n_high = n_zero = n_low = 0
            for j in range(start, stop):
                value = a * row_a[j] + b * row_b[j] + c * row_c[j]
                n_high += value > offset
                n_low += value > -offset
                is_in = value > 0
                n_zero += is_in
                hit[j] |= is_in
            high, zero, low = high + n_high, zero + n_zero, low + n_low
            if n_zero:
                first_row, last_row = min(first_row, i), i
        above[k, 0], above[k, 1], above[k, 2] = high, zero, low
        if zero:
            first, last = start, stop - 1
            while not hit[first]:
                first += 1
            while not hit[last]:
                last -= 1
            boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3] = first, first_row, last, last_row


@numba.njit(cache=True, nogil=True)
def _paint(
    ids, value, mask, row_first, row_weights, col_first, col_weights, left, top, right, bottom
):
    size, width = len(mask), len(col_first)
    wide = np.empty((size, width), np.float32)
    low = row_first[top]
    high = min(row_first[bottom] + TAPS - 1, size - 1)
    _widen(mask, wide, low + TAPS - 1, high - TAPS + 1, col_first, col_weights, left, right + 1)
    for i in range(top, bottom + 1):
        f = row_first[i]
        a, b, c = row_weights[i, 0], row_weights[i, 1], row_weights[i, 2]
        for j in range(left, right + 1):
            if a * wide[f, j] + b * wide[f + 1, j] + c * wide[f + 2, j] > 0:
                ids[i, j] = value


@numba.njit(cache=True, nogil=True)
def _extent(mask, threshold):
    """Return first and last row and column of the mask pixels above a threshold."""
    size = len(mask)
    top, bottom, left, right = size, -1, size, -1
    for r in range(size):
        row = mask[r]
        if row.max() <= threshold:
            continue
        top, bottom = min(top, r), r
        c = 0
        while row[c] <= threshold:
            c += 1
        left = min(left, c)
        c = size - 1
        while row[c] <= threshold:
            c -= 1
        right = max(right, c)
    return top, bottom, left, right


@numba.njit(cache=True, nogil=True)
def _reach(first, low, high):
    """Return the half-open range of outputs that read an input of low .. high."""
    start = 0
    while first[start] + TAPS - 1 < low:
        start += 1
    stop = len(first)
    while first[stop - 1] > high:
        stop -= 1
    return start, stop


@numba.njit(cache=True, nogil=True)
def _widen(mask, wide, top, bottom, first, weights, start, stop):
    """Resize the rows that outputs reading rows top .. bottom need, columns start .. stop."""
    size = len(mask)
    for r in range(max(top - TAPS + 1, 0), min(bottom + TAPS, size)):
        row = mask[r]
        out = wide[r]
        for j in range(start, stop):
            f = first[j]
            out[j] = (
                weights[j, 0] * row[f] + weights[j, 1] * row[f + 1] + weights[j, 2] * row[f + 2]
            )

"""Where the fields of flat JSON records lie, for records that are plainly spelled.

In: text and bounds of records. Out: the span and the kind of each wanted value. Plain is strict:
flat, ASCII, no escape, every token as JSON's grammar has it; what is not is left to a real parser.
"""

import numba
import numpy as np

from pipeline.byte_search import find_string_end
from pipeline.json_scan import match_key

MISSING, TEXT, INT, FLOAT, TRUE, FALSE, NULL, NUMBERS = range(8)  # what a field holds


@numba.njit(cache=True, nogil=True)
def read_spans(text, bounds, key_text, key_ends, counts, starts, spans, kinds, numbers):
    """Note where each record's fields are; return whether all of them are plainly spelled."""
    for row in range(len(bounds)):
        i, stop = bounds[row, 0] + 1, bounds[row, 1]
        while True:
            i = _skip_blanks(text, i)
            first = i + 1
            i = _plain_string(text, i)
            if i < 0:
                return False
            field = match_key(text, first, i - 1, key_text, key_ends)
            i = _skip_blanks(text, i)
            if text[i] != 58:  # ':'
                return False
            i = _skip_blanks(text, i + 1)
            first, is_text = i, text[i] == 34
            if text[i] == 91:  # '['
                wanted = counts[field] if field >= 0 else 0
                at = starts[field] + row * wanted if wanted else 0
                i, kind = _list(text, i, wanted, numbers, at), NUMBERS
            else:
                i, kind = _scalar(text, i)
            if i < 0:
                return False
            if field >= 0:
                kinds[field, row] = kind
                spans[field, row, 0], spans[field, row, 1] = first + is_text, i - is_text
            i = _skip_blanks(text, i)
            if text[i] != 44:
                break
            i += 1
        if text[i] != 125 or i != stop - 1:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _skip_blanks(text, i):
    while text[i] == 32 or text[i] == 10 or text[i] == 13 or text[i] == 9:
        i += 1
    return i


@numba.njit(cache=True, nogil=True)
def _plain_string(text, i):
    """Return where the string that starts here stops, -1 where it is none or not plain."""
    if text[i] != 34:
        return -1
    stop = find_string_end(text, i + 1)
    if text[stop] != 34:
        return -1
    is_plain = True
    for j in range(i + 1, stop):
        is_plain &= text[j] - np.uint8(32) < np.uint8(96)  # from blank to 127
    return stop + 1 if is_plain else -1


@numba.njit(cache=True, nogil=True)
def _scalar(text, i):
    """Return where the value that starts here stops, -1 where it is no plain one, and its kind."""
    byte = text[i]
    if byte == 34:
        return _plain_string(text, i), TEXT
    if byte == 45 or 48 <= byte <= 57:
        stop = _number(text, i)
        for j in range(i, stop):
            if text[j] == 46 or text[j] | 32 == 101:  # '.', 'e', 'E'
                return stop, FLOAT
        return stop, INT
    if byte == 116 and text[i + 1] == 114 and text[i + 2] == 117 and text[i + 3] == 101:
        return i + 4, TRUE
    if byte == 110 and text[i + 1] == 117 and text[i + 2] == 108 and text[i + 3] == 108:
        return i + 4, NULL
    if (byte == 102 and text[i + 1] == 97 and text[i + 2] == 108 and text[i + 3] == 115
            and text[i + 4] == 101):  # fmt: skip
        return i + 5, FALSE
    return -1, NULL


@numba.njit(cache=True, nogil=True)
def _number(text, i):
    """Return where the number that starts here stops, -1 where it is none."""
    i += text[i] == 45  # '-'
    first = i
    i = _digits(text, i)
    if i == first or (text[first] == 48 and i > first + 1):
        return -1
    if text[i] == 46:  # '.'
        first = i + 1
        i = _digits(text, first)
        if i == first:
            return -1
    if text[i] | 32 == 101:  # 'e'
        i += 1
        i += text[i] == 43 or text[i] == 45
        first = i
        i = _digits(text, first)
        if i == first:
            return -1
    return i


@numba.njit(cache=True, nogil=True)
def _digits(text, i):
    while 48 <= text[i] <= 57:
        i += 1
    return i


@numba.njit(cache=True, nogil=True)
def _list(text, i, wanted, numbers, at):
    """Return where the list of numbers stops, -1 where it is none or not of `wanted` numbers.

    Where `wanted` is 0 any count is right.
    """
    i = _skip_blanks(text, i + 1)
    count = 0
    if text[i] == 93 and not wanted:
        return i + 1
    while True:
        stop = _number(text, i)
        if stop < 0:
            return -1
        if wanted:
            if count == wanted:
                return -1
            numbers[at + count, 0], numbers[at + count, 1] = i, stop
        count += 1
        i = _skip_blanks(text, stop)
        if text[i] == 93:
            return i + 1 if count == wanted or not wanted else -1
        if text[i] != 44:
            return -1
        i = _skip_blanks(text, i + 1)

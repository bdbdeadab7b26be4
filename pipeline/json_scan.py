"""Find the records of a JSON list without making them: where each lies, and what some fields hold.

In: bytes of a list of records, possibly cut anywhere. Out: bounds of the complete records and a
hash of the raw text of chosen fields, so that a reader of nuScenes' 2.6 million rows looks closer
only at the fifth that it needs. Everything here lets go of the interpreter's lock.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import orjson
import pyarrow as pa

from pipeline.byte_search import WIDTH, find_marks, load_word, lowest_bit
from pipeline.packed_text import text_parts

ABSENT = 0  # hash of a field that a record lacks
_STRING, _OTHER = 1, 2  # seeds, so that "true" and true differ


@dataclass(frozen=True)
class Found:
    """The complete records of a piece of text."""

    bounds: np.ndarray  # [n, 2] int64, from the opening brace to behind the closing one
    hashes: np.ndarray  # [n, fields] uint64 of each value's text; ABSENT where there is none
    odd: np.ndarray  # [n] bool: holds a backslash, so that equal values may be spelled otherwise
    rest: int  # where the first record lies that starts at `stop` or later or is incomplete
    is_list: bool  # nothing but commas, brackets and blanks lies between the records
    is_whole: bool  # no record that starts before `stop` is incomplete


def find_records(
    data: bytes | np.ndarray, fields: Sequence[str], start: int = 0, stop: int | None = None
) -> Found:
    """Return the complete records of `data` that start in `start` .. `stop` - 1.

    Args:
        data: text, or its bytes [n] uint8.
        fields: whose values are hashed.
        start: at or before the brace of a record, and in none.
        stop: all of `data` where it is None.
    """
    text = np.frombuffer(data, np.uint8)
    stop = len(text) if stop is None else stop
    key_text, key_ends = key_table(fields)
    capacity = _count_byte(text, 123) + 1
    bounds = np.empty((capacity, 2), np.int64)
    hashes = np.zeros((capacity, len(fields)), np.uint64)
    odd = np.zeros(capacity, np.bool_)
    found = _scan(text, start, stop, key_text, key_ends, bounds, hashes, odd)
    count, rest, is_list, is_whole = found
    return Found(bounds[:count], hashes[:count], odd[:count], rest, is_list, is_whole)


def key_table(fields: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of the fields' names in one array [n] uint8, and their bounds in it."""
    keys = [orjson.dumps(field)[1:-1] for field in fields]
    return np.frombuffer(b"".join(keys), np.uint8), np.cumsum([0, *map(len, keys)])


def hash_values(values: Sequence[str | bool] | pa.StringArray) -> np.ndarray:
    """Return the hashes [n] uint64 that `find_records` gives fields with these values."""
    if isinstance(values, pa.StringArray):
        return _hash_all(*text_parts(values), _STRING)
    seeds = [_STRING if isinstance(value, str) else _OTHER for value in values]
    texts = [value if isinstance(value, str) else orjson.dumps(value).decode() for value in values]
    parts = text_parts(pa.array(texts, pa.string()))
    both = {seed: _hash_all(*parts, seed) for seed in (_STRING, _OTHER)}
    return np.where(np.array(seeds, np.int64) == _STRING, both[_STRING], both[_OTHER])


class HashSet:
    """Hashes to look others up in."""

    def __init__(self, hashes: np.ndarray) -> None:
        """Take `hashes` [n] uint64, none of them ABSENT."""
        size = 1 << max(int(2 * len(hashes)).bit_length(), 4)
        self._slots = np.zeros(size, np.uint64)
        _fill(self._slots, hashes)

    def holds(self, hashes: np.ndarray) -> np.ndarray:
        """Return which of `hashes` [n] are in it [n] bool; ABSENT never is."""
        return _lookup(self._slots, hashes)


@numba.njit(cache=True, nogil=True)
def _fill(slots, hashes):
    last = np.uint64(len(slots) - 1)
    for value in hashes:
        at = value >> np.uint64(1) & last
        while slots[at] != 0 and slots[at] != value:
            at = at + np.uint64(1) & last
        slots[at] = value


@numba.njit(cache=True, nogil=True)
def _lookup(slots, hashes):
    last = np.uint64(len(slots) - 1)
    found = np.zeros(len(hashes), np.bool_)
    for k in range(len(hashes)):
        at = hashes[k] >> np.uint64(1) & last
        while slots[at] != 0 and slots[at] != hashes[k]:
            at = at + np.uint64(1) & last
        found[k] = slots[at] != 0
    return found


@numba.njit(cache=True, nogil=True)
def _hash(text, start, stop, seed):
    value, prime = np.uint64(seed) + np.uint64(stop - start), np.uint64(0x9E3779B97F4A7C15)
    i = start
    while i + 8 <= stop:
        value = (value ^ load_word(text, i)) * prime
        value ^= value >> np.uint64(29)
        i += 8
    while i < stop:
        value = (value ^ np.uint64(text[i])) * prime
        i += 1
    return value ^ value >> np.uint64(32) | np.uint64(1)  # never ABSENT


@numba.njit(cache=True, nogil=True)
def _hash_all(text, offsets, seed):
    found = np.empty(len(offsets) - 1, np.uint64)
    for k in range(len(found)):
        found[k] = _hash(text, np.int64(offsets[k]), np.int64(offsets[k + 1]), seed)
    return found


@numba.njit(cache=True, nogil=True)
def _hash_value(text, start, stop):
    """Return the hash of a value between a key's closing quote and the comma or brace after it."""
    while start < stop and (text[start] <= 32 or text[start] == 58):  # blanks and ':'
        start += 1
    while start < stop and text[stop - 1] <= 32:
        stop -= 1
    if start == stop:
        return np.uint64(ABSENT)
    if text[start] == 34 and stop - start > 1:
        return _hash(text, start + 1, stop - 1, _STRING)
    return _hash(text, start, stop, _OTHER)


@numba.njit(cache=True, nogil=True)
def _count_byte(text, wanted):
    count = 0
    for byte in text:
        count += byte == wanted
    return count


@numba.njit(cache=True, nogil=True)
def _scan(text, start, limit, key_text, key_ends, bounds, hashes, odd):
    count, i, size = 0, start, len(text)
    is_list = True
    while i < size:
        byte = text[i]
        if byte != 123:  # '{'
            # blanks, brackets, comma
            if not (byte == 32 or byte == 10 or byte == 13 or byte == 9 or byte == 44
                    or byte == 91 or byte == 93):  # fmt: skip
                is_list = False
            i += 1
            continue
        if i >= limit:
            break
        stop = _record(text, i, key_text, key_ends, hashes[count], odd, count)
        if stop < 0:
            return count, i, is_list, False
        bounds[count, 0], bounds[count, 1] = i, stop
        count += 1
        i = stop
    return count, i, is_list, True


@numba.njit(cache=True, nogil=True)
def _record(text, start, key_text, key_ends, hashes, odd, number):
    """Return where the record that starts here stops, -1 where the text ends before."""
    size, depth = len(text), 1
    field, value_start, is_key = -1, 0, True
    in_string, first, escaped = False, 0, -1
    base, marks = start + 1 - WIDTH, np.uint64(0)
    while True:
        while marks == 0:
            base += WIDTH
            if base >= size:
                return -1
            marks = find_marks(text, base)
        i = base + lowest_bit(marks)
        marks &= marks - np.uint64(1)
        byte = text[i]
        if in_string:
            if i == escaped:
                continue
            if byte == 92:  # backslash
                odd[number], escaped = True, i + 1
            elif byte == 34:  # '"'
                in_string = False
                if depth == 1 and is_key:
                    is_key = False
                    field, value_start = match_key(text, first, i, key_text, key_ends), i + 1
        elif byte == 34:
            in_string, first = True, i + 1
        elif byte == 123 or byte == 91:
            depth += 1
        elif byte != 92:  # comma or closing bracket
            if depth == 1:
                if field >= 0:
                    hashes[field] = _hash_value(text, value_start, i)
                field, is_key = -1, True
            if byte != 44:
                depth -= 1
                if depth == 0:
                    return i + 1


@numba.njit(cache=True, nogil=True)
def match_key(text, start, stop, key_text, key_ends):
    """Return which of the keys text[start:stop] is, -1 for none."""
    for k in range(len(key_ends) - 1):
        first = key_ends[k]
        if stop - start != key_ends[k + 1] - first:
            continue
        j = start
        while j < stop and text[j] == key_text[first + j - start]:
            j += 1
        if j == stop:
            return k
    return -1

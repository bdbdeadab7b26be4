"""Find the records of a JSON list without making them: where each lies, and what some fields hold.

In: bytes of a list of records, possibly cut anywhere. Out: bounds of the complete records and a
hash of the raw text of chosen fields, so that a reader of nuScenes' 2.6 million rows parses only
the fifth that it needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import orjson

ABSENT = 0  # hash of a field that a record lacks


@dataclass(frozen=True)
class Found:
    """The complete records of a piece of text."""

    bounds: np.ndarray  # [n, 2] int64, from the opening brace to behind the closing one
    hashes: np.ndarray  # [n, fields] uint64 of each value's text; ABSENT where there is none
    odd: np.ndarray  # [n] bool: holds a backslash, so that equal values may be spelled otherwise
    rest: int  # where the first incomplete record starts
    is_list: bool  # nothing but commas, brackets and blanks lies between the records


def find_records(data: bytes, fields: Sequence[str]) -> Found:
    """Return the complete records of `data`, which starts at or before a record's brace."""
    keys = [orjson.dumps(field)[1:-1] for field in fields]
    ends = np.cumsum([0, *map(len, keys)])
    text = np.frombuffer(data, np.uint8)
    capacity = data.count(b"{") + 1
    bounds = np.empty((capacity, 2), np.int64)
    hashes = np.zeros((capacity, len(keys)), np.uint64)
    odd = np.zeros(capacity, np.bool_)
    key_text = np.frombuffer(b"".join(keys), np.uint8)
    count, rest, is_list = _scan(text, key_text, ends, bounds, hashes, odd)
    return Found(bounds[:count], hashes[:count], odd[:count], rest, is_list)


def hash_values(values: Sequence[str | bool]) -> np.ndarray:
    """Return the hashes [n] uint64 that `find_records` gives fields with these values."""
    # not orjson alone: its bytes keep the kilobyte they start with, 2 GB for 500,000 tokens
    is_text = set(map(type, values)) == {str}
    joined = "".join(values) if is_text else ""
    if joined.isascii() and joined.isalnum():
        text = '"' + '""'.join(values) + '"'
        lengths = np.fromiter(map(len, values), np.int64, len(values)) + 2
    else:
        texts = [orjson.dumps(value).decode() for value in values]
        text = "".join(texts)
        lengths = np.array([len(one.encode()) for one in texts], np.int64)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return _hash_all(np.frombuffer(text.encode(), np.uint8), ends)


@numba.njit(cache=True)
def _hash(text, start, stop):
    # FNV-1a
    value = np.uint64(14695981039346656037)
    for i in range(start, stop):
        value = (value ^ np.uint64(text[i])) * np.uint64(1099511628211)
    return value | np.uint64(1)  # never ABSENT


@numba.njit(cache=True)
def _hash_all(text, ends):
    found = np.empty(len(ends) - 1, np.uint64)
    for k in range(len(found)):
        found[k] = _hash(text, ends[k], ends[k + 1])
    return found


@numba.njit(cache=True)
def _scan(text, key_text, key_ends, bounds, hashes, odd):
    count, i, size = 0, 0, len(text)
    rest, is_list = size, True
    while i < size:
        byte = text[i]
        if byte != 123:  # '{'
            # blanks, brackets, comma
            if not (byte == 32 or byte == 10 or byte == 13 or byte == 9 or byte == 44
                    or byte == 91 or byte == 93):  # fmt: skip
                is_list = False
            i += 1
            continue
        stop = _record(text, i, key_text, key_ends, hashes[count], odd, count)
        if stop < 0:
            rest = i
            break
        bounds[count, 0], bounds[count, 1] = i, stop
        count += 1
        i = stop
    return count, rest, is_list


@numba.njit(cache=True)
def _record(text, start, key_text, key_ends, hashes, odd, number):
    """Return where the record that starts here stops, -1 where the text ends before."""
    size, i, depth = len(text), start + 1, 1
    field, value_start, value_stop, is_key = -1, 0, 0, True
    while i < size:
        byte = text[i]
        if byte == 34:  # '"'
            first = i
            i += 1
            while i < size and text[i] != 34:
                if text[i] == 92:  # backslash
                    odd[number] = True
                    i += 1
                i += 1
            if i >= size:
                return -1
            if depth == 1 and is_key:
                is_key = False
                field = _match(text, first + 1, i, key_text, key_ends)
                value_start = value_stop = 0
                while i + 1 < size and text[i] != 58:  # ':'
                    i += 1
            elif field >= 0:
                value_start, value_stop = value_start or first, i + 1
        elif byte == 123 or byte == 91:
            depth += 1
        elif byte == 125 or byte == 93 or (byte == 44 and depth == 1):
            if depth == 1:
                if field >= 0 and value_stop:
                    hashes[field] = _hash(text, value_start, value_stop)
                field, is_key = -1, True
            if byte != 44:
                depth -= 1
                if depth == 0:
                    return i + 1
        elif field >= 0 and byte > 32:
            value_start, value_stop = value_start or i, i + 1
        i += 1
    return -1


@numba.njit(cache=True)
def _match(text, start, stop, key_text, key_ends):
    for k in range(len(key_ends) - 1):
        length = key_ends[k + 1] - key_ends[k]
        if stop - start != length:
            continue
        j = 0
        while j < length and text[start + j] == key_text[key_ends[k] + j]:
            j += 1
        if j == length:
            return k
    return -1

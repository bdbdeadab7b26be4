"""A JSON list of records cut into pieces that threads read each for itself.

A piece begins where a record seems to begin, at a brace after `}, `; text inside of a string can
look so too, which is why the reader compares that place with where the piece before says it ends.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from pipeline.json_scan import Found, find_records

TAIL_BYTES = 1 << 16  # read beyond a piece for its last record
_memory = threading.local()


@dataclass(frozen=True)
class Piece:
    """The records that start in a part of a file."""

    start: int  # where in the file the first record was looked for; -1 if no place was found
    stop: int  # of the part in the file
    text: np.ndarray  # [n] uint8, from `offset` of the file on; until its thread reads the next
    offset: int
    found: Found

    @property
    def after(self) -> int:
        """Where in the file the record after the piece starts, or what is left at its end."""
        return self.offset + self.found.rest


def read_piece(
    path: Path, fields: Sequence[str], start: int, stop: int, is_start: bool = False
) -> Piece:
    """Return the records of a file that start in `start` .. `stop` - 1.

    Args:
        path: the file.
        fields: as in `find_records`.
        start: first byte.
        stop: behind the last byte.
        is_start: whether `start` is known to lie in no record; the first byte of a file never does.
    """
    tail, length = TAIL_BYTES, stop - start
    while True:
        text = _read(path, start, length + tail)
        first = 0 if is_start or start == 0 else _guess(text, length)
        found = find_records(text, fields, max(first, 0), length if first >= 0 else 0)
        if found.is_whole or len(text) < length + tail:
            return Piece(start + first if first >= 0 else -1, stop, text, start, found)
        tail *= 8  # a record longer than the tail


def _read(path: Path, start: int, size: int) -> np.ndarray:
    """Return bytes of a file, in the thread's own memory: fresh pages cost as much as the copy."""
    if len(getattr(_memory, "buffer", b"")) < size:
        _memory.buffer = np.empty(size, np.uint8)
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        return _memory.buffer[: file.readinto(memoryview(_memory.buffer)[:size])]


@numba.njit(cache=True, nogil=True)
def _guess(text, limit):
    """Return where the first brace lies that follows a brace and a comma, -1 for none."""
    state = 0  # 1 after a closing brace, 2 after a comma that follows one
    for i in range(min(limit, len(text))):
        byte = text[i]
        if byte == 125:
            state = 1
        elif byte == 44 and state == 1:
            state = 2
        elif byte == 123 and state == 2:
            return i
        elif byte > 32:
            state = 0
    return -1

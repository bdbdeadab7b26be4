"""The hash of each row of the index: of all that a stage reads of it, and so of what it depends on.

In: the table without hashes. Out: SHA-256 of the bytes of each row: column by column in the order
of the schema, but for splits, then frame id, scan and pose of its successor. A column's bytes are a
mark for each value (0 = null), the lengths of texts and lists, and what they hold; structs give
their fields' bytes in turn. JSON texts of the same took three times as long.
"""

from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from itertools import pairwise

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ahead import THREADS, ahead
from pipeline.packed_text import text_parts

ROWS = 512  # at a time: more take fresh pages, which cost as much as the work
_AFTER = ("frame_id", "points_path", "T_world_lidar")  # what is read of a successor


def contents(table: pa.Table) -> pa.Array:
    """Return the hashes [rows] binary(32) of a table of index_table.SCHEMA without `content`."""
    after = table["successor"].to_numpy()
    rows = pa.array(after, mask=after < 0)
    # the number of the successor's row shifts as a data set grows
    columns = [table[n] for n in table.schema.names if n not in ("splits", "successor")]
    columns += [table[name].take(rows) for name in _AFTER]
    calls = [
        partial(_hashes, [column.slice(start, ROWS) for column in columns])
        for start in range(0, len(table), ROWS)
    ]
    hashes = ahead(calls, THREADS, THREADS)
    return pa.array([one for part in hashes for one in part], pa.binary(32))


def _hashes(columns: list[pa.ChunkedArray]) -> list[bytes]:
    bounds = np.arange(len(columns[0]) + 1)
    parts = [part for column in columns for part in _parts(column.combine_chunks(), bounds)]
    ends = np.sum([stops - stops[0] for _, stops in parts], axis=0)
    text, at = np.empty(ends[-1], np.uint8), ends[:-1].copy()
    for data, stops in parts:
        _place(text, at, data, stops)
    view = memoryview(text)
    return [sha256(view[a:b]).digest() for a, b in pairwise(ends.tolist())]


@numba.njit(cache=True, nogil=True)
def _place(text, at, data, ends):
    """Copy each row's bytes of a part to its place `at` in the text, and move the place on."""
    for row in range(len(at)):
        start, size = at[row], ends[row + 1] - ends[row]
        for k in range(size):
            text[start + k] = data[ends[row] + k]
        at[row] += size


def _parts(column: pa.Array, bounds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the parts of a column: bytes [n] uint8, and where each row's lie in them [rows + 1].

    Args:
        column: values of many rows.
        bounds: [rows + 1] where each row's lie in it.
    """
    kind, given = column.type, np.asarray(column.is_valid())
    yield given.view(np.uint8), bounds
    if pa.types.is_string(kind):
        data, ends = text_parts(pc.fill_null(column, ""))
        yield _bytes(np.diff(ends)), 4 * bounds
        yield data, ends[bounds]
    elif pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        values = column.values.slice(column.offset * size, len(column) * size)
        numbers = pc.fill_null(values, 0).to_numpy().reshape(-1, size)
        yield _bytes(np.where(given[:, None], numbers, 0)), 8 * size * bounds
    elif pa.types.is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        yield _bytes(lengths), 4 * bounds
        yield from _parts(column.flatten(), np.concatenate([[0], np.cumsum(lengths)])[bounds])
    elif pa.types.is_struct(kind):
        for field in column.flatten():
            yield from _parts(field, bounds)
    else:
        numbers = pc.fill_null(column, 0).to_numpy()
        yield _bytes(numbers), numbers.itemsize * bounds


def _bytes(numbers: np.ndarray) -> np.ndarray:
    """Return the bytes [n] uint8 of an array."""
    return np.ascontiguousarray(numbers).reshape(-1).view(np.uint8)

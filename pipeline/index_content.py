"""The hash of each row of the index: of all that a stage reads of it, and so of what it depends on.

In: the table without hashes. Out: SHA-256 of one JSON text per row: its values in the order of the
schema but for splits, and frame id, scan and pose of its successor. Texts are joined as columns: a
Python object per camera and sweep takes ten times as long on nuScenes.
"""

from collections.abc import Iterable
from functools import partial
from hashlib import sha256

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ahead import THREADS, ahead
from pipeline.packed_text import text_array, text_parts

ROWS = 512  # at a time: more take fresh pages, which cost as much as the work
_AFTER = ("frame_id", "points_path", "T_world_lidar")  # what is read of a successor


def contents(table: pa.Table) -> pa.Array:
    """Return the hashes [rows] binary(32) of a table of index_table.SCHEMA without `content`."""
    after = table["successor"].to_numpy()
    rows = pa.array(after, mask=after < 0)
    scans = pa.Table.from_arrays([table[name].take(rows) for name in _AFTER], names=_AFTER)
    own = table.select([name for name in table.schema.names if name != "splits"])
    calls = [
        partial(_hashes, own.slice(start, ROWS), scans.slice(start, ROWS))
        for start in range(0, len(table), ROWS)
    ]
    hashes = ahead(calls, THREADS, THREADS)
    return pa.array([one for part in hashes for one in part], pa.binary(32))


def _hashes(rows: pa.Table, after: pa.Table) -> list[bytes]:
    texts = {name: _texts(rows[name].combine_chunks()) for name in rows.schema.names}
    scans = [_texts(after[name].combine_chunks()) for name in after.schema.names]
    is_last = pc.less(rows["successor"].combine_chunks(), 0)
    texts["successor"] = pc.if_else(is_last, "null", scans[0])
    scan = pc.if_else(is_last, "null", _join("[", *_separated(scans), "]"))
    joined = _join("[[", *_separated(texts.values()), "],", scan, "]")
    data, offsets = text_parts(joined)
    view, bounds = memoryview(data), offsets.tolist()
    return [sha256(view[a:b]).digest() for a, b in zip(bounds, bounds[1:], strict=False)]


def _separated(texts: Iterable[pa.Array]) -> list[pa.Array | str]:
    return [word for text in texts for word in (",", text)][1:]


def _join(*words: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*words, "")


def _texts(column: pa.Array) -> pa.Array:
    """Return the JSON text of each value of a column."""
    kind = column.type
    if pa.types.is_string(kind):
        texts = _quoted(column)
    elif pa.types.is_fixed_size_list(kind):
        texts = _matrix_texts(column)
    elif pa.types.is_struct(kind):
        fields = [
            _join(f'"{field.name}":', _texts(column.field(k))) for k, field in enumerate(kind)
        ]
        texts = _join("{", *_separated(fields), "}")
    elif pa.types.is_list(kind):
        texts = _list_texts(column)
    else:
        texts = column.cast(pa.string())
    return pc.if_else(column.is_valid(), texts, "null") if column.null_count else texts


def _list_texts(column: pa.ListArray) -> pa.Array:
    values = column.flatten()
    if pa.types.is_floating(values.type):
        if not len(values):
            return pa.array(["[]"] * len(column), pa.string())
        rows = [None if row is None else orjson.dumps(row).decode() for row in column.to_pylist()]
        return pa.array(rows, pa.string())
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    rows = pa.ListArray.from_arrays(pa.array(offsets), _texts(values))
    return _join("[", pc.binary_join(rows, ","), "]")


def _quoted(column: pa.StringArray) -> pa.Array:
    data, bounds = text_parts(column)
    data = data[bounds[0] : bounds[-1]]
    if ((data < 32) | (data == 34) | (data == 92)).any():  # must be escaped
        texts = (None if one is None else orjson.dumps(one).decode() for one in column.to_pylist())
        return pa.array(texts, pa.string())
    return _join('"', column, '"')


def _matrix_texts(column: pa.FixedSizeListArray) -> pa.Array:
    if not len(column):
        return pa.array([], pa.string())
    size = column.type.list_size
    side = round(size**0.5)
    values = column.values.slice(column.offset * size, len(column) * size)
    numbers = pc.fill_null(values, 0.0).to_numpy().reshape(len(column), side, side)
    text = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)
    # '[[[1,2],[3,4]],[[5,6],[7,8]]]': side + 1 closing brackets for each matrix
    data = np.frombuffer(text, np.uint8)
    stops = np.flatnonzero(data == 93)[side :: side + 1] + 1
    bounds = np.stack([np.concatenate([[1], stops[:-1] + 1]), stops], 1).astype(np.int32)
    both = text_array(data, np.append(bounds.ravel(), len(data)).astype(np.int32), pa.string())
    return both.take(pa.array(np.arange(0, len(both), 2)))  # without the commas between

"""Wanted fields of plainly spelled JSON records as Arrow columns, with no Python object per value.

In: text and the bounds of flat records. Out: a batch, or None where some record is spelled in a way
that only a complete parser may judge (escapes, other characters than ASCII, nesting, values of
another type, errors); then `batch_of_records` makes the same columns of parsed records.
"""

from pathlib import Path
from typing import Any

import numba
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.json_scan import key_table
from pipeline.json_spans import FLOAT, INT, MISSING, NUMBERS, TEXT, TRUE, read_spans
from pipeline.packed_text import text_array

Record = dict[str, Any]
RAW = pa.binary()  # a scalar's JSON text, b"null" where the record lacks the field
_MAX_DIGITS = 18  # that an int64 always holds, sign included


def read_plain(text: np.ndarray, bounds: np.ndarray, schema: pa.Schema) -> pa.RecordBatch | None:
    """Return the fields of the records at `bounds` [n, 2], None where one is not plainly spelled.

    Args:
        text: [size] uint8.
        bounds: of the records, as `find_records` gives them.
        schema: fields as string, int64, bool, fixed-size list of float64, or RAW.
    """
    key_text, key_ends = key_table(schema.names)
    counts = np.array([kind.list_size if _is_list(kind) else 0 for kind in schema.types], np.int64)
    spans = np.zeros((len(schema), len(bounds), 2), np.int64)
    kinds = np.zeros((len(schema), len(bounds)), np.uint8)
    starts = np.cumsum([0, *(len(bounds) * counts)])  # of each field in `numbers`
    numbers = np.zeros((starts[-1], 2), np.int64)
    if not read_spans(text, bounds, key_text, key_ends, counts, starts, spans, kinds, numbers):
        return None
    columns = []
    for k, kind in enumerate(schema.types):
        column = _column(text, kind, spans[k], kinds[k], numbers[starts[k] : starts[k + 1]])
        if column is None:
            return None
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def batch_of_records(records: list[Record], schema: pa.Schema, path: Path) -> pa.RecordBatch:
    """Return the same columns of parsed records.

    Args:
        records: with all fields but RAW ones, of the right types but for what is in lists.
        schema: as in `read_plain`.
        path: of the table.

    Raises:
        UserError: a list is not of as many finite numbers as the schema says; names the record.
    """
    lists = {field.name: field.type.list_size for field in schema if _is_list(field.type)}
    columns: dict[str, pa.Array] = _numbers(records, lists, path)
    for field in schema:
        if field.type == RAW:
            values = [orjson.dumps(record.get(field.name)) for record in records]
            columns[field.name] = pa.array(values, RAW)
        elif field.name not in lists:
            columns[field.name] = pa.array([row[field.name] for row in records], field.type)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind)


def _numbers(records: list[Record], sizes: dict[str, int], path: Path) -> dict[str, pa.Array]:
    found = {}
    try:
        for name, size in sizes.items():
            values = np.array([record[name] for record in records], np.float64)
            if records and values.shape[1:] != (size,) or not np.isfinite(values).all():
                raise ValueError("other counts, or no numbers")
            found[name] = pa.FixedSizeListArray.from_arrays(values.reshape(-1), size)
        return found
    except (ValueError, TypeError):
        for record in records if len(records) > 1 else ():
            _numbers([record], sizes, path)
        raise UserError(
            f"{path.name} record {records[0]['token']}: {' and '.join(sizes)} must be "
            f"{' and '.join(map(str, sizes.values()))} numbers, got "
            f"{' and '.join(str(records[0][name]) for name in sizes)}; "
            "unpack the metadata archive again"
        ) from None


def _column(
    text: np.ndarray, kind: pa.DataType, spans: np.ndarray, kinds: np.ndarray, numbers: np.ndarray
) -> pa.Array | None:
    if kind == RAW:
        if np.isin(kinds, (TEXT, FLOAT, NUMBERS)).any():  # spelled otherwise by orjson
            return None
        given = _packed(text, spans, kind)
        absent = kinds == MISSING
        return pc.if_else(pa.array(absent), b"null", given) if absent.any() else given
    if pa.types.is_string(kind):
        return _packed(text, spans, kind) if (kinds == TEXT).all() else None
    if pa.types.is_boolean(kind):
        return pa.array(kinds == TRUE) if (kinds >> 1 == TRUE >> 1).all() else None
    if pa.types.is_int64(kind):
        short = (spans[:, 1] - spans[:, 0] <= _MAX_DIGITS).all()
        return pa.array(_ints(text, spans)) if short and (kinds == INT).all() else None
    if not (kinds == NUMBERS).all():
        return None
    values = pc.cast(_packed(text, numbers, pa.string()), pa.float64())
    if not np.isfinite(values.to_numpy()).all():  # 1e999, which orjson refuses
        return None
    return pa.FixedSizeListArray.from_arrays(values, kind.list_size)


def _packed(text: np.ndarray, spans: np.ndarray, kind: pa.DataType) -> pa.Array:
    offsets = np.zeros(len(spans) + 1, np.int32)
    np.cumsum(spans[:, 1] - spans[:, 0], out=offsets[1:])
    data = np.empty(offsets[-1], np.uint8)
    _copy(text, spans, offsets, data)
    return text_array(data, offsets, kind)


@numba.njit(cache=True, nogil=True)
def _copy(text, spans, offsets, data):
    for k in range(len(spans)):
        at, first = offsets[k], spans[k, 0]
        for j in range(spans[k, 1] - first):
            data[at + j] = text[first + j]


@numba.njit(cache=True, nogil=True)
def _ints(text, spans):
    values = np.empty(len(spans), np.int64)
    for k in range(len(spans)):
        first = spans[k, 0]
        is_negative = text[first] == 45
        value = 0
        for i in range(first + is_negative, spans[k, 1]):
            value = value * 10 + np.int64(text[i]) - 48
        values[k] = -value if is_negative else value
    return values

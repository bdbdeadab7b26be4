"""Relational tables as JSON lists of records (nuScenes): read whole or in a stream, follow keys.

The large tables of nuScenes trainval have 2.6 million records each; parsed at once they take about
5 GB, so `stream_columns` reads them in pieces, on all cores, and makes columns of what is needed.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipeline.ahead import THREADS, ahead
from pipeline.errors import UserError
from pipeline.json_fields import RAW, Record, batch_of_records, read_plain
from pipeline.json_pieces import Piece, read_piece

PIECE_BYTES = 1 << 22
_EDGE_BYTES = 1 << 16  # of a file, in which its brackets are looked for

_KINDS = {  # of nuScenes' fields; all others are text
    "timestamp": int,
    "is_key_frame": bool,
    "rotation": list,
    "translation": list,
    "camera_intrinsic": list,
}


@dataclass(frozen=True)
class Choice:
    """Which records of a table are read."""

    fields: tuple[str, ...]  # what it is decided by
    keep: Callable[[np.ndarray], np.ndarray]  # [n, fields] uint64 (json_scan.py) -> [n] bool


def read_records(path: Path, fields: Sequence[str]) -> list[Record]:
    """Return all records of a table.

    Args:
        path: the JSON file.
        fields: what every record must have.

    Raises:
        UserError: missing, broken, not a list of records, or a record without a field.
    """
    return _parse(_read(path), path, fields)


def stream_columns(path: Path, schema: pa.Schema, choice: Choice) -> Iterator[pa.RecordBatch]:
    """Yield the chosen records of a table in batches; memory stays at a few pieces of the file.

    What lies in records that are not chosen is never looked at.

    Args:
        path: the JSON file.
        schema: fields that every chosen record must have (RAW ones may be absent), with their
            types as in json_fields.py.
        choice: which records; more may come where equal values may be spelled otherwise.

    Raises:
        UserError: missing, broken, not a list of records, or a record without a field.
    """
    is_list, due = _is_in_brackets(path), 0  # due: where the next record starts
    size = path.stat().st_size if is_list else 0
    calls = [
        partial(_read_batch, path, schema, choice, start, min(start + PIECE_BYTES, size))
        for start in range(0, size, PIECE_BYTES)
    ]
    for batch in ahead(calls, 2 * THREADS, THREADS):
        # a wrong guess, or text to be parsed, which by now is another piece's in its thread
        if due < batch.piece.stop and (batch.piece.start != due or batch.columns is None):
            batch = _read_batch(path, schema, choice, due, batch.piece.stop, is_start=True)
        if due < batch.piece.stop:
            is_list = batch.piece.found.is_list and batch.piece.found.is_whole
            if not is_list:
                break
            due = batch.piece.after
            columns = batch.columns
            yield _parse_batch(batch, path, schema) if columns is None else columns
    if not is_list:
        _parse(_read(path), path, ())
        raise UserError(f"{path}: table must be a JSON list of records; unpack the archive again")


@dataclass(frozen=True)
class _Batch:
    piece: Piece
    bounds: np.ndarray  # [n, 2] of the chosen records in the piece's text
    columns: pa.RecordBatch | None  # None where orjson must have a look


def _read_batch(
    path: Path, schema: pa.Schema, choice: Choice, start: int, stop: int, is_start: bool = False
) -> _Batch:
    """Return a piece's chosen records; raises nothing, for the piece may start in a string."""
    piece = read_piece(path, choice.fields, start, stop, is_start)
    bounds = piece.found.bounds[choice.keep(piece.found.hashes) | piece.found.odd]
    return _Batch(piece, bounds, read_plain(piece.text, bounds, schema))


def _parse_batch(batch: _Batch, path: Path, schema: pa.Schema) -> pa.RecordBatch:
    texts = [batch.piece.text[start:stop].tobytes() for start, stop in batch.bounds.tolist()]
    fields = [field.name for field in schema if field.type != RAW]
    records = _parse(b"[" + b",".join(texts) + b"]", path, fields)
    return batch_of_records(records, schema, path)


def _is_in_brackets(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            first = file.read(_EDGE_BYTES).strip()[:1]
            file.seek(max(path.stat().st_size - _EDGE_BYTES, 0))
            return first + file.read().strip()[-1:] == b"[]"
    except OSError:
        return False  # reading it whole says why


def follow(
    table: Mapping[str, Any], token: str, name: str, origin: str, record: str, field: str
) -> Any:
    """Return the entry of `table` that a record's field names.

    Args:
        table: token -> entry.
        token: the value of the field.
        name: of the table that is looked into, as in 'ego_pose'.
        origin: of the table that holds the record.
        record: token of the record.
        field: its field.

    Raises:
        UserError: the table has no such token.
    """
    try:
        return table[token]
    except KeyError:
        raise UserError(
            f"{origin}.json record {record}: {field} must be a token of {name}.json, got '{token}' "
            "which it lacks; the tables are incomplete, unpack the metadata archive again"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{path}: table must be a readable file, got '{reason}'; "
            "unpack the metadata archive again"
        ) from None


def _parse(data: bytes, path: Path, fields: Sequence[str]) -> list[Record]:
    try:
        return _checked(orjson.loads(data), path, fields)
    except orjson.JSONDecodeError as error:
        raise UserError(
            f"{path}: table must be a JSON list of records, got broken JSON ({error}); "
            "the file is cut short, unpack the metadata archive again"
        ) from None


def _checked(content: Any, path: Path, fields: Sequence[str]) -> list[Record]:
    if not isinstance(content, list) or set(map(type, content)) - {dict}:
        kind = type(content).__name__
        raise UserError(
            f"{path}: table must be a JSON list of records, got "
            f"{kind if kind != 'list' else 'other things in the list'}; unpack the archive again"
        )
    for field in fields:
        kind = _KINDS.get(field, str)
        if set(map(type, map(operator.methodcaller("get", field), content))) <= {kind}:
            continue
        for record in content:
            if type(record.get(field)) is not kind:
                got = f"'{field}' of {type(record[field]).__name__}" if field in record else "none"
                raise UserError(
                    f"{path}: record {record.get('token')} must have '{field}' of "
                    f"{kind.__name__}, got {got}; unpack the metadata archive again"
                )
    return content

"""Relational tables as JSON lists of records (nuScenes): read whole or in a stream, follow keys.

The large tables of nuScenes trainval have 2.6 million records each; parsed at once they take about
5 GB, so `stream_records` hands them out in pieces and the reader keeps what it needs.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from pipeline.errors import UserError

PIECE_BYTES = 1 << 24
_BOUNDARY = re.compile(rb"\}\s*,\s*\{")
_TAIL_BYTES = 1 << 14  # longer than any record of the tables that are streamed

Record = dict[str, Any]


def read_records(path: Path, fields: Sequence[str]) -> list[Record]:
    """Return all records of a table.

    Args:
        path: the JSON file.
        fields: what every record must have.

    Raises:
        UserError: missing, broken, not a list of records, or a record without a field.
    """
    return _parse(_read(path), path, fields)


def stream_records(path: Path, fields: Sequence[str]) -> Iterator[list[Record]]:
    """Yield the records of a table in lists of some ten thousand; memory stays at one piece.

    A piece is cut between two records. Where a cut falls inside a record (records within records),
    the piece does not parse and the rest of the file is read at once.

    Args:
        path: the JSON file.
        fields: what every record must have.

    Raises:
        UserError: missing, broken, not a list of records, or a record without a field.
    """
    if not path.is_file():
        _read(path)
    with path.open("rb") as file:
        pending = b""
        while piece := file.read(PIECE_BYTES):
            pending += piece
            cut = _last_boundary(pending)
            if cut is None:
                continue
            try:
                head = orjson.loads(pending[: cut[0] + 1] + b"]")
            except orjson.JSONDecodeError:
                pending += file.read()
                break
            yield _checked(head, path, fields)
            pending = b"[" + pending[cut[1] - 1 :]
    yield _parse(pending, path, fields)


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
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        kind = type(content).__name__
        raise UserError(
            f"{path}: table must be a JSON list of records, got "
            f"{kind if kind != 'list' else 'other things in the list'}; unpack the archive again"
        )
    for record in content:
        for field in fields:
            if field not in record:
                raise UserError(
                    f"{path}: record {record.get('token')} must have '{field}', got only "
                    f"{', '.join(record)}; unpack the metadata archive again"
                )
    return content


def _last_boundary(data: bytes) -> tuple[int, int] | None:
    start = max(0, len(data) - _TAIL_BYTES)
    matches = list(_BOUNDARY.finditer(data, start))
    return matches[-1].span() if matches else None

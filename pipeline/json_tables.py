"""Relational tables as JSON lists of records (nuScenes): read whole or in a stream, follow keys.

The large tables of nuScenes trainval have 2.6 million records each; parsed at once they take about
5 GB, so `stream_records` hands them out in pieces and the reader keeps what it needs.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipeline.errors import UserError
from pipeline.json_scan import find_records

PIECE_BYTES = 1 << 24

Record = dict[str, Any]
_KINDS = {  # of nuScenes' fields; all others are text
    "timestamp": int,
    "is_key_frame": bool,
    "rotation": list,
    "translation": list,
    "camera_intrinsic": list,
}


@dataclass(frozen=True)
class Choice:
    """Which records of a table are parsed."""

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


def stream_records(path: Path, fields: Sequence[str], choice: Choice) -> Iterator[list[Record]]:
    """Yield the chosen records of a table in lists; memory stays at one piece of the file.

    What lies in records that are not chosen is never looked at; the text is scanned at a third of
    what parsing it costs.

    Args:
        path: the JSON file.
        fields: what every chosen record must have.
        choice: which records.

    Raises:
        UserError: missing, broken, not a list of records, or a record without a field.
    """
    if not path.is_file():
        _read(path)
    pending, ends = b"", b""  # ends: first and last byte so far that is no blank
    is_list = True
    with path.open("rb") as file:
        while is_list and (piece := file.read(PIECE_BYTES)):
            ends = (ends + piece.strip())[:1] + (ends + piece.strip())[-1:]
            pending += piece
            found = find_records(pending, choice.fields)
            is_list = found.is_list and ends[:1] in (b"[", b"")
            if is_list:
                wanted = choice.keep(found.hashes) | found.odd
                texts = [pending[start:stop] for start, stop in found.bounds[wanted].tolist()]
                yield _parse(b"[" + b",".join(texts) + b"]", path, fields)
                pending = pending[found.rest :]
    if not is_list or pending or ends != b"[]":
        _parse(_read(path), path, fields)
        raise UserError(f"{path}: table must be a JSON list of records; unpack the archive again")


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

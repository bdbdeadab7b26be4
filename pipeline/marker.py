"""Markers: the small files beside a store that say which blocks are done."""

from pathlib import Path
from typing import Any

import orjson

from pipeline.files import sha256

# what markers held before they had a checksum of their own; the exact set, so that a damaged
# 'check' does not pass for an old marker
_UNCHECKED = frozenset("block rows_hash sha256 bytes num_frames quarantined seconds commit".split())
_KEYS = _UNCHECKED | {"shapes", "files"}


def marker_folder(path: Path) -> Path:
    """Return the folder of a store's markers, beside the store."""
    return path.with_name(path.name.removesuffix(".zarr") + ".blocks")


def checked_json(content: dict[str, Any]) -> bytes:
    """Return the content as JSON with its own checksum, for `read_checked`."""
    whole = {**content, "check": _digest(content)}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2)


def read_checked(path: Path) -> dict[str, Any] | None:
    """Return what `checked_json` was given, or None where the file is missing or damaged."""
    content = _read(path)
    if content is None or content.pop("check", None) != _digest(content):
        return None
    return content


def read_marker(path: Path) -> dict[str, Any] | None:
    """Return a marker's content, or None where there is none (or a damaged one)."""
    content = _read(path)
    if content is None or content.keys() == _UNCHECKED:
        return content
    check = content.pop("check", None)
    return content if content.keys() == _KEYS and check == _digest(content) else None


def _digest(content: dict[str, Any]) -> str:
    return sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = orjson.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):  # ValueError: no JSON, no UTF-8
        return None
    return content if isinstance(content, dict) else None

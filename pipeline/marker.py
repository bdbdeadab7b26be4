"""Markers: the small files beside a store that say which blocks are done."""

import json
from pathlib import Path
from typing import Any

KEYS = {"rows_hash", "sha256", "bytes", "num_frames", "quarantined"}


def marker_folder(path: Path) -> Path:
    """Return the folder of a store's markers, beside the store."""
    return path.with_name(path.name.removesuffix(".zarr") + ".blocks")


def read_marker(path: Path) -> dict[str, Any] | None:
    """Return a marker's content, or None where there is none (or a damaged one)."""
    try:
        marker = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):  # ValueError: no JSON, no UTF-8
        return None
    is_whole = isinstance(marker, dict) and KEYS <= marker.keys()
    return marker if is_whole else None

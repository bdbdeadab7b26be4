"""Whole-file operations that leave either the old file or the new one, never half of one."""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np


def file_of(path: str) -> str:
    """Return the file part of a path that may name a record in a Parquet file after a '#'."""
    file, hash_sign, _ = path.partition(".parquet#")
    return f"{file}.parquet" if hash_sign else path


def write_atomically(path: Path, *data: bytes) -> None:
    """Write `data` to `path` through a temporary neighbour, fsync and rename.

    Args:
        path: file to make or replace; its folder is made where it is missing.
        data: the complete content, in one or more pieces.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(
            partial, 0o644
        )  # mkstemp gives 0600, which a shared file system's readers cannot open
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def sha256(*data: bytes | memoryview) -> str:
    """Return the hexadecimal SHA-256 of `data`, piece after piece."""
    digest = hashlib.sha256()
    for piece in data:
        digest.update(piece)
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_array(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's C-contiguous bytes (shape and dtype are no part of it)."""
    return sha256(memoryview(np.ascontiguousarray(array)).cast("B")) if array.size else sha256(b"")

"""Texts as one array of bytes and bounds in it: what numba and Arrow both read without a copy."""

import numpy as np
import pyarrow as pa


def text_parts(texts: pa.StringArray | pa.BinaryArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes [n] uint8 of a column, and the offsets [rows + 1] int32 of its rows."""
    _, offsets, data = texts.buffers()
    first, count = texts.offset, len(texts)
    bounds = np.frombuffer(offsets, np.int32)[first : first + count + 1] if offsets else None
    if bounds is None or not len(bounds):
        bounds = np.zeros(1, np.int32)
    return np.frombuffer(data or b"", np.uint8), bounds


def text_array(data: np.ndarray, offsets: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Return the column of `kind`, string or binary, with these bytes and int32 offsets."""
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(offsets) - 1, buffers)

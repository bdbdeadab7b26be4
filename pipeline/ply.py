"""PLY files: the vertices of ascii and binary files as a cloud.

In: a file whose first element is `vertex`. Out: its points. Faces and other elements behind the
vertices are left alone.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError, check
from pipeline.point_fields import cloud_of_fields
from pipeline.types import PointCloud

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class PlyHeader:
    """What a PLY header says of its vertices."""

    dtype: np.dtype  # one vertex
    num_points: int
    is_ascii: bool
    num_bytes: int  # of the header


def read_ply(path: Path) -> PointCloud:
    """Return the cloud of a PLY file.

    Raises:
        UserError: missing, no PLY, cut short, or without x, y, z.
    """
    header = read_ply_header(path)
    body = path.read_bytes()[header.num_bytes :]
    if header.is_ascii:
        lines = body.splitlines()[: header.num_points]
        try:
            values = np.loadtxt(io.BytesIO(b"\n".join(lines)), dtype=header.dtype, ndmin=1)
            if len(values) != header.num_points:
                raise ValueError(f"{len(values)} lines")
        except ValueError as error:
            raise UserError(
                f"{path}: must hold {header.num_points} lines of numbers, got {error}; copy it "
                "again"
            ) from None
        return cloud_of_fields(path, values)
    need = header.num_points * header.dtype.itemsize
    check(
        len(body) >= need,
        f"{path}: vertices must take {need} bytes after the header, got {len(body)}; "
        "the file is cut short, copy it again",
    )
    return cloud_of_fields(path, np.frombuffer(body[:need], header.dtype))


def read_ply_header(path: Path) -> PlyHeader:
    """Return the header of a PLY file.

    Raises:
        UserError: no PLY header, or its first element is no plain vertex list.
        OSError: missing.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    mark = head.find(b"end_header")
    stop = head.find(b"\n", mark) + 1
    check(
        head.startswith(b"ply") and mark > 0 and stop > 0,
        f"{path}: must have a PLY header, got {head[:20]!r}; write the file again",
    )
    lines = [line.split() for line in head[:mark].decode("ascii", "replace").splitlines()]
    formats = [words[1] for words in lines if words[:1] == ["format"]]
    elements = [k for k, words in enumerate(lines) if words[:1] == ["element"]]
    try:
        order = _ORDERS[formats[0]]
        first = lines[elements[0]]
        properties = lines[elements[0] : elements[1] if len(elements) > 1 else None]
        fields = [(w[2], order + _TYPES[w[1]]) for w in properties if w[:1] == ["property"]]
        if first[1] != "vertex":
            raise ValueError(f"first element '{first[1]}'")
        return PlyHeader(np.dtype(fields), int(first[2]), order == "", stop)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{path}: must be ascii or binary with plain vertex properties first, got "
            f"{type(error).__name__} {error}; write the file again"
        ) from None

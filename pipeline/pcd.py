"""PCD files (Point Cloud Library): ascii, binary and binary_compressed.

In: a file. Out: its points, with NaN where an organized cloud has no return. Compressed files hold
one field after the other, packed by LZF; unpacking is compiled, a pure loop takes seconds a scan.
"""

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from pipeline.errors import UserError, check
from pipeline.point_fields import cloud_of_fields
from pipeline.types import PointCloud

_KINDS = {"F": "f", "I": "i", "U": "u"}
_HEADER_BYTES = 4096  # a header is far shorter
_ADVICE = "write the file again"


@dataclass(frozen=True)
class PcdHeader:
    """What a PCD header says."""

    dtype: np.dtype  # one record
    num_points: int
    encoding: str  # ascii, binary, binary_compressed
    num_bytes: int  # of the header


def read_pcd(path: Path) -> PointCloud:
    """Return the cloud of a PCD file.

    Raises:
        UserError: missing, no PCD, cut short, or without x, y, z.
    """
    header = read_pcd_header(path)
    body = path.read_bytes()[header.num_bytes :]
    if header.encoding == "ascii":
        return cloud_of_fields(path, _read_ascii(path, header, body))
    if header.encoding == "binary_compressed":
        body = _to_records(path, header, body)
    need = header.num_points * header.dtype.itemsize
    check(
        len(body) >= need,
        f"{path}: points must take {need} bytes after the header, got {len(body)}; "
        "the file is cut short, copy it again",
    )
    return cloud_of_fields(path, np.frombuffer(body[:need], header.dtype))


def read_pcd_header(path: Path) -> PcdHeader:
    """Return the header of a PCD file.

    Raises:
        UserError: no PCD header.
        OSError: missing.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    lines: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in lines:
        end = head.find(b"\n", start)
        check(end >= 0, f"{path}: must have a PCD header up to DATA, got {head[:20]!r}; {_ADVICE}")
        key, *values = head[start:end].decode("ascii", "replace").split() or ["#"]
        lines[key] = values
        start = end + 1
    try:
        names, sizes = lines["FIELDS"], lines["SIZE"]
        counts = map(int, lines.get("COUNT", ["1"] * len(names)))
        kinds = [f"<{_KINDS[t]}{size}" for t, size in zip(lines["TYPE"], sizes, strict=True)]
        fields = [
            (f"_{k}" if name == "_" else name, kind, (count,)) if count != 1 else
            (f"_{k}" if name == "_" else name, kind)
            for k, (name, kind, count) in enumerate(zip(names, kinds, counts, strict=True))
        ]  # fmt: skip
        num_points = int(lines["POINTS"][0])
        encoding = lines["DATA"][0]
        dtype = np.dtype(fields)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(
            f"{path}: must have a PCD header with FIELDS, SIZE, TYPE, POINTS and DATA, got "
            f"{type(error).__name__} {error}; {_ADVICE}"
        ) from None
    check(
        encoding in ("ascii", "binary", "binary_compressed") and num_points >= 0,
        f"{path}: DATA must be ascii, binary or binary_compressed, got '{encoding}'; {_ADVICE}",
    )
    return PcdHeader(dtype, num_points, encoding, start)


def _read_ascii(path: Path, header: PcdHeader, body: bytes) -> np.ndarray:
    try:
        values = np.loadtxt(io.BytesIO(body), dtype=np.float64, ndmin=2)
        widths = [int(np.prod(header.dtype[name].shape)) for name in header.dtype.names]
        if values.shape != (header.num_points, sum(widths)):
            raise ValueError(f"{list(values.shape)} numbers")
    except ValueError as error:
        raise UserError(
            f"{path}: must hold {header.num_points} lines of numbers, got {error}; copy it again"
        ) from None
    columns = dict(zip(header.dtype.names, np.cumsum([0, *widths[:-1]]), strict=True))
    scalars = [n for n, width in zip(header.dtype.names, widths, strict=True) if width == 1]
    records = np.empty(len(values), [(name, np.float64) for name in scalars])
    for name in scalars:
        records[name] = values[:, columns[name]]
    return records


def _to_records(path: Path, header: PcdHeader, body: bytes) -> bytes:
    """Return the records of a compressed body, field by field put back together."""
    need = header.num_points * header.dtype.itemsize
    packed_bytes, plain_bytes = struct.unpack("<II", body[:8]) if len(body) >= 8 else (0, 0)
    check(
        plain_bytes == need and len(body) >= 8 + packed_bytes,
        f"{path}: compressed points must unpack to {need} bytes, got {plain_bytes} announced and "
        f"{max(len(body) - 8, 0)} of {packed_bytes} packed bytes; copy the file again",
    )
    plain = np.empty(need, np.uint8)
    done = _unpack_lzf(np.frombuffer(body, np.uint8, packed_bytes, 8), plain)
    check(
        done == need,
        f"{path}: compressed points must unpack to {need} bytes, got {done}; {_ADVICE}",
    )
    records = np.empty(header.num_points, header.dtype)
    start = 0
    for name in header.dtype.names:
        kind = header.dtype[name]
        size = kind.itemsize * header.num_points
        shape = (header.num_points, *kind.shape)
        records[name] = plain[start : start + size].view(kind.base).reshape(shape)
        start += size
    return records.tobytes()


@numba.njit(cache=True)
def _unpack_lzf(packed, plain):
    """Unpack LZF: literal runs (control < 32) and copies from at most 8 KiB back.

    Returns the number of bytes written, -1 where the stream leaves its bounds.
    """
    i, o = 0, 0
    while i < len(packed):
        control = np.int64(packed[i])
        i += 1
        if control < 32:
            run = control + 1
            if i + run > len(packed) or o + run > len(plain):
                return -1
            plain[o : o + run] = packed[i : i + run]
            i += run
            o += run
            continue
        length = control >> 5
        if length == 7:
            if i >= len(packed):
                return -1
            length += np.int64(packed[i])
            i += 1
        if i >= len(packed):
            return -1
        source = o - ((control & 31) << 8) - np.int64(packed[i]) - 1
        i += 1
        length += 2
        if source < 0 or o + length > len(plain):
            return -1
        for k in range(length):  # byte by byte: source and target may overlap
            plain[o + k] = plain[source + k]
        o += length
    return o

"""Chunks straight from shard files, for readers of millions of small pieces.

In: an array's metadata and a chunk's place. Out: the chunk's bytes as an array. zarr's own reading
costs about a millisecond a call, most of it in its event loop (a training sample takes twenty);
this opens the file, looks the chunk up and decompresses it. Same format, same checksums; whatever
an array has that is not known here (another codec, a second shard beside the first, a chunk that
was never written) is left to zarr.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import decompress

_NO_CHUNK = 2**64 - 1
_CRC_BYTES = 4
_MAX_INDICES = 512  # of shards, kept in memory; 3 KB each at six cameras
_INNER = ["bytes", "zstd"]
_INDEX = ["bytes", "crc32c"]


class ChunkReader:
    """Reads one frame of one array whose chunks are cut along the first axis below frames only."""

    def __init__(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        sharding = metadata["codecs"][0]["configuration"]
        self._prefix = f"{folder}/c/"
        self.shape = tuple(metadata["shape"])
        self._suffix = "/0" * (len(self.shape) - 1)
        self.shard = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        self.chunk = tuple(sharding["chunk_shape"])
        self.dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
        below = (self.chunk[1:2] or (1,))[0], (self.shard[1:2] or (1,))[0]
        self.num_parts = -(-below[1] // below[0])  # chunks of a frame
        self._indices: dict[int, tuple[tuple[int, ...], np.ndarray]] = {}

    @staticmethod
    def fits(metadata: Mapping[str, Any]) -> bool:
        """Return whether an array is one that this reads."""
        codecs = metadata["codecs"]
        if [codec["name"] for codec in codecs] != ["sharding_indexed"]:
            return False
        sharding = codecs[0]["configuration"]
        shape, chunk = tuple(metadata["shape"]), tuple(sharding["chunk_shape"])
        shard = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        return (
            [codec["name"] for codec in sharding["codecs"]] == _INNER
            and [codec["name"] for codec in sharding["index_codecs"]] == _INDEX
            and sharding["index_location"] == "end"
            and metadata["chunk_key_encoding"]["name"] == "default"
            and chunk[0] == 1
            and shape[1:] == shard[1:]  # it did not grow sideways
            and chunk[2:] == shard[2:]
            and all(side % part == 0 for side, part in zip(shard[1:2], chunk[1:2], strict=True))
        )

    def read(self, row: int, part: int | None) -> np.ndarray | None:
        """Return a chunk, or all chunks of a frame; None where one was never written.

        Args:
            row: frame.
            part: which of the frame's chunks; None = all.

        Returns:
            [chunk.shape[1:]] or [shape[1:]], writable.

        Raises:
            OSError: the file is missing or cut off.
            RuntimeError: a checksum is wrong.
        """
        shard, place = divmod(row, self.shard[0])
        path = f"{self._prefix}{shard}{self._suffix}"
        parts = range(self.num_parts) if part is None else (part,)
        out = np.empty((len(parts), *self.chunk[1:]), self.dtype)
        handle = os.open(path, os.O_RDONLY)
        try:
            index = self._index(handle, shard)
            for number, which in enumerate(parts):
                offset, size = index[place * self.num_parts + which].tolist()
                if offset == _NO_CHUNK:
                    return None
                raw = os.pread(handle, size, offset)
                if len(raw) != size:
                    raise OSError(f"shard {path} is cut off")
                decompress(raw, out[number : number + 1])
        finally:
            os.close(handle)
        return out[0] if part is not None else out.reshape(self.shape[1:])

    def _index(self, handle: int, shard: int) -> np.ndarray:
        """Return offsets and sizes [chunks, 2] uint64 of a shard, kept while its file stands."""
        found = os.fstat(handle)
        identity = (found.st_ino, found.st_mtime_ns, found.st_size)
        kept = self._indices.get(shard)
        if kept is not None and kept[0] == identity:
            return kept[1]
        length = self.shard[0] * self.num_parts * 16
        raw = os.pread(handle, length + _CRC_BYTES, max(found.st_size - length - _CRC_BYTES, 0))
        content, crc = raw[:length], raw[length:]
        if google_crc32c.value(content) != int.from_bytes(crc, "little"):
            raise RuntimeError("the checksum of the shard's index is wrong")
        if len(self._indices) >= _MAX_INDICES:
            self._indices.pop(next(iter(self._indices)))
        index = np.frombuffer(content, "<u8").reshape(-1, 2)
        self._indices[shard] = (identity, index)
        return index

"""Zarr stores: open, read a frame. Making a store is making.py's, writing a block blocks.py's.

One store per stage (and source or settings), frames along axis 0, one shard per block and array
(more in a store that grew, see making.py). A store's attributes carry the whole config.
"""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import zarr

from pipeline.chunks import ChunkReader
from pipeline.errors import UserError
from pipeline.marker import marker_folder, read_marker
from pipeline.schema import SCHEMA_VERSION, Capacity
from pipeline.shards import file_of_shard


@dataclass(frozen=True)
class Header:
    """What a store is: everything that must agree before anybody writes to it or reads it."""

    dataset: str
    stage: str
    stage_version: int  # bumped by hand when a stage's output changes
    config: dict[str, Any]
    config_hash: str
    capacity: Capacity
    frames_per_block: int
    schema_version: int = SCHEMA_VERSION


class Store:
    """An open store. Reads whole frames; refuses frames whose block is not done."""

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self.group = group
        attributes = dict(group.attrs)
        header = dict(attributes.pop("header"))
        header["capacity"] = Capacity(**header["capacity"])
        self.header = Header(**header)
        self.attributes: dict[str, Any] = attributes
        self._arrays: dict[str, zarr.Array] = {}
        self._readers: dict[str, ChunkReader | None] = {}
        self._recorded: dict[int, frozenset[str]] = {}  # arrays that a block was written with
        self._quarantined: dict[
            int, dict[int, str]
        ] = {}  # block -> row -> reason; done blocks only

    @property
    def num_blocks(self) -> int:
        """Number of blocks, the last one possibly shorter."""
        return -(-self.header.capacity.num_frames // self.header.frames_per_block)

    def block_rows(self, block: int) -> range:
        """Return the index rows of a block."""
        size = self.header.frames_per_block
        return range(block * size, min((block + 1) * size, self.header.capacity.num_frames))

    def array(self, name: str) -> zarr.Array:
        """Return an array by name, opened once.

        Raises:
            UserError: the store has no such array.
        """
        if name not in self._arrays:
            try:
                self._arrays[name] = self.group[name]
            except (KeyError, ValueError, TypeError) as error:
                raise UserError(
                    f"{self.path}: array '{name}' must be readable, got {type(error).__name__}; "
                    "run 'make verify', or make it again with ARGS=--rebuild"
                ) from error
        return self._arrays[name]

    def marker_path(self, block: int) -> Path:
        """Return the path of a block's marker."""
        return marker_folder(self.path) / f"{block}.json"

    def shard_paths(self, name: str, block: int) -> list[Path]:
        """Return the files of an array's block: one, or several where the array grew sideways.

        Those past the first may be missing: all that they would hold is fill values.
        """
        array = self.array(name)
        first = array.shards or array.chunks
        counts = [-(-size // side) for size, side in zip(array.shape[1:], first[1:], strict=True)]
        return [
            file_of_shard(self.path / name, block, place)
            for place in itertools.product(*(range(count) for count in counts))
        ]

    def stored_bytes(self, name: str, block: int) -> int:
        """Return the bytes of an array's block on disk, 0 where its first shard is missing."""
        first, *others = self.shard_paths(name, block)
        try:
            return first.stat().st_size + sum(p.stat().st_size for p in others if p.exists())
        except FileNotFoundError:
            return 0

    def damage(self, block: int, marker: dict[str, Any]) -> str | None:
        """Return which array's files lack the sizes that the marker tells, or None."""
        for name, size in marker["bytes"].items():
            if (found := self.stored_bytes(name, block)) != size:
                return f"{name}: {found} bytes on disk, not {size}"
        return None

    def read(self, name: str, row: int, *where: int | slice) -> np.ndarray:
        """Return one frame of an array, or the part of it that `where` selects.

        Args:
            name: array name.
            row: index row.
            where: further indices below the frame axis.

        Raises:
            UserError: the block is not done or is damaged, or the frame was quarantined.
        """
        reason = self.missing(row)
        if reason:
            raise UserError(
                f"{self.path}: frame {row} must be done, got {reason}; {self.remedy(reason)}"
            )
        try:
            found = self._read_chunks(name, row, where)
            return np.asarray(self.array(name)[(row, *where)]) if found is None else found
        except (RuntimeError, ValueError, OSError) as error:  # checksums of zstd and of the shard
            raise UserError(
                f"{self.path}/{name}: frame {row} must be readable, got '{error}'; run 'make "
                f"verify DATASET={self.header.dataset}', then {self.remedy()}"
            ) from error

    def _read_chunks(
        self, name: str, row: int, where: tuple[int | slice, ...]
    ) -> np.ndarray | None:
        """Return what `read` asks for past zarr; None where only zarr can read it."""
        if name not in self._readers:
            metadata = self.array(name).metadata.to_dict()
            fits = ChunkReader.fits(metadata)
            self._readers[name] = ChunkReader(self.path / name, metadata) if fits else None
        reader = self._readers[name]
        if reader is None or not 0 <= row < reader.shape[0] or not self._has_block(name, row):
            return None
        if not where or not isinstance(where[0], int) or reader.num_parts == 1:
            found = reader.read(row, None)
            return None if found is None else np.asarray(found[where])
        part, inside = divmod(where[0], reader.chunk[1])
        if not 0 <= part < reader.num_parts:
            return None
        found = reader.read(row, part)
        return None if found is None else np.asarray(found[(inside, *where[1:])])

    def _has_block(self, name: str, row: int) -> bool:
        """Return whether a frame's block has files of an array; not of one that was added later."""
        return name in self._recorded[row // self.header.frames_per_block]

    def missing(self, row: int) -> str | None:
        """Return why a frame cannot be read ('block not done', 'quarantined: ...'), or None."""
        block = row // self.header.frames_per_block
        if block not in self._quarantined:
            marker = read_marker(self.marker_path(block))
            if marker is None:
                return f"block {block} not done"
            if damage := self.damage(block, marker):  # a missing shard would read as zeros
                return f"block {block} damaged ({damage})"
            self._quarantined[block] = {q["row"]: q["reason"] for q in marker["quarantined"]}
            self._recorded[block] = frozenset(marker["bytes"])
        reason = self._quarantined[block].get(row)
        return f"quarantined ({reason})" if reason else None

    def remedy(self, reason: str = "") -> str:
        """Return the command that makes what is missing, for a reason that `missing` gave."""
        name = self.path.name.removesuffix(".zarr")
        source = f" VFM={name.partition('-')[2]}" if name.startswith("superpixels-") else ""
        again = " ARGS=--retry-quarantined" if reason.startswith("quarantined") else ""
        where = f"STAGE={self.header.stage} DATASET={self.header.dataset}"
        return f"run 'make stage {where}{source}{again}'"


def open_store(path: Path) -> Store:
    """Open an existing store for reading.

    Raises:
        UserError: no store there, not one of ours, or one of another schema version.
    """
    if not path.is_dir():
        stage = re.split("[.@-]", path.name)[0]
        known = stage in ("frames", "superpixels", "projections", "segments")
        advice = (
            f"run 'make stage STAGE={stage}'" if known else "give stores/<data set>/<name>.zarr"
        )
        raise UserError(f"{path}: store must exist, got nothing; {advice}")
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        version = group.attrs["header"]["schema_version"]
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema version must be {SCHEMA_VERSION}, got {version}; "
                "make it again with ARGS=--rebuild"
            )
        return Store(path, group)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise UserError(
            f"{path}: must be a readable Selkie store, got {type(error).__name__}; "
            "run 'make verify', which mends metadata, or make it again with ARGS=--rebuild"
        ) from error


def read_identity(path: Path) -> str:
    """Return the id that a store got when it was made, without opening it (4 ms each time).

    Raises:
        UserError: no store there, or damaged metadata.
    """
    try:
        return orjson.loads((path / "zarr.json").read_bytes())["attributes"]["store_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return open_store(path).attributes["store_id"]  # says what is wrong

"""Zarr stores: create, open, read a frame. Writing a block is blocks.py's.

One store per stage (and source or settings), frames along axis 0, one shard per block. A store's
attributes carry the whole config, so a store made with other settings is refused, never mixed.
"""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from pipeline.config import differences
from pipeline.errors import UserError
from pipeline.marker import marker_folder, read_marker
from pipeline.schema import SCHEMA_VERSION, ArraySpec, Capacity

COMPRESSION_LEVEL = 3  # zstd: 6 images of ids at 1600x900 in 0.1 s; level 9 takes 5x for 8 % less


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
                    f"rerun 'make stage STAGE={self.header.stage} ARGS=--rebuild'"
                ) from error
        return self._arrays[name]

    def marker_path(self, block: int) -> Path:
        """Return the path of a block's marker."""
        return marker_folder(self.path) / f"{block}.json"

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
            return np.asarray(self.array(name)[(row, *where)])
        except (RuntimeError, ValueError, OSError) as error:  # checksums of zstd and of the shard
            raise UserError(
                f"{self.path}/{name}: frame {row} must be readable, got '{error}'; run 'make "
                f"verify DATASET={self.header.dataset}', then {self.remedy()}"
            ) from error

    def missing(self, row: int) -> str | None:
        """Return why a frame cannot be read ('block not done', 'quarantined: ...'), or None."""
        block = row // self.header.frames_per_block
        if block not in self._quarantined:
            marker = read_marker(self.marker_path(block))
            if marker is None:
                return f"block {block} not done"
            self._quarantined[block] = {q["row"]: q["reason"] for q in marker["quarantined"]}
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
        stage = path.name.split(".")[0].split("-")[0]
        raise UserError(f"{path}: store must exist, got nothing; run 'make stage STAGE={stage}'")
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
            "make it again with ARGS=--rebuild"
        ) from error


def open_or_create(
    path: Path,
    header: Header,
    arrays: Sequence[ArraySpec],
    attributes: dict[str, Any],
    rebuild: bool = False,
) -> Store:
    """Open the store of this header, making it where it is missing, growing it where frames came.

    Args:
        path: `<stores>/<dataset>/<name>.zarr`.
        header: what the store must be.
        arrays: its arrays.
        attributes: further attributes for readers (classes, label map, camera names).
        rebuild: replace a store of another header, or a damaged one, instead of refusing it.

    Raises:
        UserError: a store of another header stands there; says what differs.
    """
    if path.exists():
        try:
            _check_same(open_store(path), header, arrays, attributes)
        except UserError:
            if not rebuild:
                raise
            remove_store(path)
    if not path.exists():
        _create(path, header, arrays, attributes)
    store = open_store(path)
    if header.capacity.num_frames > store.header.capacity.num_frames:
        _grow(path, header, attributes)
        store = open_store(path)
    return store


def _check_same(
    store: Store, header: Header, arrays: Sequence[ArraySpec], attributes: dict[str, Any]
) -> None:
    """Refuse a store of another header or attributes, or one that lacks an array."""
    found = replace(store.header, capacity=replace(store.header.capacity, num_frames=0))
    wanted = replace(header, capacity=replace(header.capacity, num_frames=0))
    changes = differences(_plain(found), _plain(wanted)) + differences(
        store.attributes, _plain(attributes), "attributes"
    )
    # the hash follows the config; scenes come with growth; the id is the store's own
    passed = ("config_hash", "attributes.scenes", "attributes.store_id")
    changes = [line for line in changes if not line.startswith(passed)]
    if changes:
        raise UserError(
            f"{store.path}: was made with other settings ({'; '.join(changes[:4])}); "
            "use those, or make it again with ARGS=--rebuild"
        )
    for spec in arrays:
        store.array(spec.name)


def remove_store(path: Path) -> None:
    """Remove a store and its markers; these go first, so that a kill leaves nothing 'done'."""
    shutil.rmtree(marker_folder(path), ignore_errors=True)
    trash = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.removed-"))
    os.replace(path, trash / path.name)
    shutil.rmtree(trash)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(asdict(value) if isinstance(value, Header) else value))


def _create(path: Path, header: Header, arrays: Sequence[ArraySpec], attributes: dict) -> None:
    """Make the store in a temporary folder and rename it; a race's loser keeps the winner's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # markers without a store belong to one that was removed by hand: they say 'done' of nothing
    shutil.rmtree(marker_folder(path), ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new-"))
    try:
        group = zarr.create_group(folder / path.name, zarr_format=3)
        for spec in arrays:
            group.create_array(
                spec.name,
                shape=(header.capacity.num_frames, *spec.frame_shape),
                chunks=(1, *spec.chunk),
                shards=(header.frames_per_block, *spec.frame_shape),
                dtype=spec.dtype,
                fill_value=spec.fill,
                compressors=[ZstdCodec(level=COMPRESSION_LEVEL, checksum=True)],
            )
        identity = {"store_id": uuid.uuid4().hex}  # a rebuilt store is another one
        group.attrs.update({"header": _plain(header), **_plain(attributes), **identity})
        try:
            os.rename(folder / path.name, path)
        except OSError:
            if not path.exists():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _grow(path: Path, header: Header, attributes: dict) -> None:
    """Lengthen every array to the index's frames; old rows keep their numbers and their data."""
    group = zarr.open_group(path, mode="r+", zarr_format=3)
    for _, array in group.arrays():
        array.resize((header.capacity.num_frames, *array.shape[1:]))
    group.attrs.update({"header": _plain(header), **_plain(attributes)})

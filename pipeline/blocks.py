"""Write, check and repair blocks: the commit protocol of the stores.

A block is one shard per array. Its marker is removed first and renamed in last, so a kill at any
moment leaves the block not done; readers look at markers only.
"""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from pipeline.errors import UserError
from pipeline.files import sha256_array, write_atomically
from pipeline.marker import read_marker
from pipeline.store import Store, open_store


@dataclass(frozen=True)
class Quarantined:
    """A frame that could not be computed; its slot holds the fill values."""

    row: int
    frame_id: str
    reason: str  # the error's own line
    traceback: str


@dataclass(frozen=True)
class BlockReport:
    """What came of one block; travels back from workers instead of arrays."""

    block: int
    num_frames: int
    quarantined: tuple[Quarantined, ...]
    seconds: float


def write_block(
    store: Store,
    block: int,
    slices: dict[str, np.ndarray],
    rows_hash: str,
    quarantined: tuple[Quarantined, ...],
    seconds: float,
) -> BlockReport:
    """Write one block and its marker.

    Args:
        store: the open store.
        block: block number.
        slices: array name -> [frames in block, ...], complete.
        rows_hash: hash of the block's index rows.
        quarantined: frames whose slots hold fill values.
        seconds: what computing took.
    """
    for attempt in range(3):
        try:
            return _write_block(store, block, slices, rows_hash, quarantined, seconds)
        except FileNotFoundError:  # another command at work on this block removed our shard
            check_identity(store)
            if attempt == 2:
                raise
    raise AssertionError("unreachable")


def check_identity(store: Store) -> None:
    """Refuse to go on where another command has replaced the store since it was opened.

    Raises:
        UserError: the store on disk is another one.
    """
    found = open_store(store.path).attributes["store_id"]
    if found != store.attributes["store_id"]:
        raise UserError(
            f"{store.path}: must stay the store that this run opened, got one that another command "
            "rebuilt; run again"
        )


def _write_block(
    store: Store,
    block: int,
    slices: dict[str, np.ndarray],
    rows_hash: str,
    quarantined: tuple[Quarantined, ...],
    seconds: float,
) -> BlockReport:
    check_identity(store)
    marker_path = store.marker_path(block)
    marker_path.unlink(missing_ok=True)
    rows = store.block_rows(block)
    group = zarr.open_group(store.path, mode="r+", zarr_format=3)
    files = {}
    with zarr.config.set({"array.write_empty_chunks": True}):
        for name, values in slices.items():
            shard = shard_path(store, name, block)
            # rewriting over a damaged shard would read it first and raise
            shard.unlink(missing_ok=True)
            for partial in shard.parent.glob(f"{shard.name}.*"):
                partial.unlink(missing_ok=True)
            array = group[name]
            array[rows.start : rows.stop] = values
            _sync(shard)
            files[name] = shard.stat().st_size
    report = BlockReport(block, len(rows), quarantined, seconds)
    marker = {
        "block": block,
        "rows_hash": rows_hash,
        "sha256": {name: sha256_array(values) for name, values in slices.items()},
        "bytes": files,
        "num_frames": len(rows),
        "quarantined": [vars(q) for q in quarantined],
        "seconds": round(seconds, 3),
        "commit": git_commit(),
    }
    check_identity(store)
    write_atomically(marker_path, json.dumps(marker, indent=1).encode())
    return report


def is_done(store: Store, block: int, rows_hash: str) -> bool:
    """Return whether the marker stands, its index rows agree and its shards have their sizes."""
    marker = read_marker(store.marker_path(block))
    if marker is None or marker["rows_hash"] != rows_hash:
        return False
    if marker["num_frames"] != len(store.block_rows(block)):
        return False
    try:
        return all(
            shard_path(store, name, block).stat().st_size == size
            for name, size in marker["bytes"].items()
        )
    except FileNotFoundError:
        return False


def read_block(store: Store, block: int) -> tuple[dict[str, np.ndarray], str | None]:
    """Return a block's slices and what is wrong with them (None where they match their marker)."""
    marker = read_marker(store.marker_path(block))
    if marker is None:
        return {}, "no readable marker"
    rows = store.block_rows(block)
    slices = {}
    for name, digest in marker["sha256"].items():
        shard = shard_path(store, name, block)
        if not shard.exists():
            return {}, f"{name}: shard is missing"
        if shard.stat().st_size != marker["bytes"][name]:
            return (
                {},
                f"{name}: shard has {shard.stat().st_size} bytes, not {marker['bytes'][name]}",
            )
        try:
            slices[name] = np.asarray(store.array(name)[rows.start : rows.stop])
        except (RuntimeError, ValueError, OSError) as error:  # checksums of zstd and of the shard
            return {}, f"{name}: {error}"
        if sha256_array(slices[name]) != digest:
            return {}, f"{name}: content differs from its checksum"
    return slices, None


def quarantined_frames(store: Store, block: int) -> list[Quarantined]:
    """Return the frames that a done block left out."""
    marker = read_marker(store.marker_path(block))
    return [Quarantined(**q) for q in marker["quarantined"]] if marker else []


def verify(path: Path, advance: Callable[[], None] = lambda: None) -> tuple[int, list[str]]:
    """Rehash every done block and delete the markers of bad ones, so that a rerun repairs them.

    Args:
        path: the store.
        advance: called after each block, for progress.

    Returns:
        Number of good blocks, and one line 'block 3: labels: ...' for each bad one.
    """
    store = open_store(path)
    good, bad = 0, []
    for block in range(store.num_blocks):
        if store.marker_path(block).exists():
            problem = read_block(store, block)[1]
            if problem:
                store.marker_path(block).unlink(missing_ok=True)
                bad.append(f"block {block}: {problem}")
            else:
                good += 1
        advance()
    return good, bad


def shard_path(store: Store, name: str, block: int) -> Path:
    """Return the file of an array's shard."""
    zeros = "/".join(["0"] * (store.array(name).ndim - 1))
    return (
        store.path / name / "c" / str(block) / zeros
        if zeros
        else store.path / name / "c" / str(block)
    )


def git_commit() -> str:
    """Return the commit that runs (recorded, never compared), or '' outside a checkout."""
    try:
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _sync(path: Path) -> None:
    """Flush a shard to disk before its marker says that it is there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

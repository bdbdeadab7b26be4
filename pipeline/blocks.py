"""Write, check and read blocks: the commit protocol of the stores.

A block is one shard per array. Its marker is removed first and renamed in last, so a kill at any
moment leaves the block not done.
"""

import functools
import subprocess
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import sha256, sha256_array, write_atomically
from pipeline.job import BlockReport, Quarantined
from pipeline.marker import checked_json, read_marker
from pipeline.shards import Layout, encode_block, file_of_shard, read_layout
from pipeline.store import Store, read_identity


def write_block(
    store: Store,
    block: int,
    slices: dict[str, np.ndarray],
    rows_hash: str,
    quarantined: tuple[Quarantined, ...],
    seconds: float,
) -> BlockReport:
    """Write one block and its marker; the caller holds the block's lock.

    Every shard is encoded in memory and renamed over the old one: a reader that trusts a marker it
    read earlier never meets a missing file, which Zarr would give it as zeros.

    Args:
        store: the open store.
        block: block number.
        slices: array name -> [frames in block, ...], complete.
        rows_hash: hash of the block's index rows.
        quarantined: frames whose slots hold fill values.
        seconds: what computing took.

    Raises:
        UserError: another command rebuilt the store.
    """
    check_identity(store)
    marker_path, rows = store.marker_path(block), store.block_rows(block)
    marker_path.unlink(missing_ok=True)
    digests, sizes = {}, {}
    for name, values in slices.items():
        layout = _layout(store.path / name)  # as it is now: another command may have widened it
        shards = encode_block(values, layout)
        pieces = [piece for place in sorted(shards) for piece in shards[place]]
        digests[name], sizes[name] = sha256(*pieces), sum(map(len, pieces))
        for place in layout.places():
            path = file_of_shard(store.path / name, block, place)
            for partial in path.parent.glob(f".{path.name}.*.partial"):  # of a killed command
                partial.unlink(missing_ok=True)
            if place in shards:
                write_atomically(path, *shards[place])
            else:
                path.unlink(missing_ok=True)
    report = BlockReport(block, len(rows), quarantined, seconds)
    marker = {
        "block": block,
        "rows_hash": rows_hash,
        "sha256": {name: sha256_array(values) for name, values in slices.items()},
        "shapes": {name: list(values.shape[1:]) for name, values in slices.items()},
        "files": digests,
        "bytes": sizes,
        "num_frames": len(rows),
        "quarantined": [vars(q) for q in quarantined],
        "seconds": round(seconds, 3),
        "commit": git_commit(),
    }
    check_identity(store)
    for partial in marker_path.parent.glob(f".{marker_path.name}.*.partial"):
        partial.unlink(missing_ok=True)
    write_atomically(marker_path, checked_json(marker))
    return report


def check_identity(store: Store) -> None:
    """Refuse to go on where another command has replaced the store since it was opened.

    Raises:
        UserError: the store on disk is another one.
    """
    found = read_identity(store.path)
    if found != store.attributes["store_id"]:
        raise UserError(
            f"{store.path}: must stay the store that this run opened, got one that another command "
            "rebuilt; run again"
        )


def _layout(folder: Path) -> Layout:
    try:
        return read_layout(folder)
    except (OSError, ValueError, LookupError, TypeError, StopIteration) as error:
        raise UserError(
            f"{folder}: array must have readable metadata, got {error!r}; run 'make verify', or "
            "make the store again with ARGS=--rebuild"
        ) from error


def is_done(store: Store, block: int, rows_hash: str) -> bool:
    """Return whether the marker stands, its index rows agree and its shards have their sizes."""
    marker = read_marker(store.marker_path(block))
    if marker is None or marker["rows_hash"] != rows_hash:
        return False
    if marker["num_frames"] != len(store.block_rows(block)):
        return False
    return store.damage(block, marker) is None


def read_block(store: Store, block: int) -> tuple[dict[str, np.ndarray], str | None]:
    """Return a block's slices and what is wrong with them (None where they match their marker)."""
    marker = read_marker(store.marker_path(block))
    if marker is None:
        return {}, "no readable marker"
    if damage := store.damage(block, marker):
        return {}, damage
    rows = store.block_rows(block)[: marker["num_frames"]]  # the last block may have grown since
    slices = {}
    for name, digest in marker["sha256"].items():
        array = store.array(name)
        files = sorted(path for path in store.shard_paths(name, block) if path.exists())
        found = sha256(*(path.read_bytes() for path in files))
        # zstd does not look at every bit of its headers, so a flip there leaves the content right
        if marker.get("files", {name: found})[name] != found:
            return {}, f"{name}: file differs from its checksum"
        # a store may have been widened since; an old marker knows its first width only
        shape = marker.get("shapes", {}).get(name, array.shards[1:])
        try:
            part = (slice(rows.start, rows.stop), *(slice(size) for size in shape))
            slices[name] = np.asarray(array[part])
        except (RuntimeError, ValueError, OSError) as error:  # checksums of zstd and of the shard
            return {}, f"{name}: {error}"
        if sha256_array(slices[name]) != digest:
            return {}, f"{name}: content differs from its checksum"
    return slices, None


def quarantined_frames(store: Store, block: int) -> list[Quarantined]:
    """Return the frames that a done block left out."""
    marker = read_marker(store.marker_path(block))
    return [Quarantined(**q) for q in marker["quarantined"]] if marker else []


@functools.cache
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

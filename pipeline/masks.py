"""Superpixels as PNG files, one per image: out of a store, and the checks on their way in.

The layout is that of SLidR, Seal and SuperFlow: `<folder>/<camera token>.png`, one gray channel at
native size. Importing is the source `images` of stage superpixels; what only an import can know is
checked here. Both ways are exact: the numbers of a file come back, gaps and all.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import UserError, check
from pipeline.files import write_atomically
from pipeline.image import decode_ids
from pipeline.index import Index
from pipeline.store import Store

_LISTED = 5


def export_masks(
    store: Store,
    index: Index,
    rows: Sequence[int],
    folder: Path,
    bits: int,
    advance: Callable[[], None] = lambda: None,
) -> int:
    """Write the native ids of every image of the chosen frames and return how many there are.

    Args:
        store: superpixels store.
        index: for tokens and native sizes.
        rows: chosen frames; all must be done.
        folder: made where it is missing.
        bits: 8 or 16 per pixel.
        advance: called after each frame, for progress.

    Raises:
        UserError: a frame is not done or quarantined, or an id does not fit; nothing is written.
    """
    dtype, count = np.dtype(f"uint{bits}"), 0
    for row in rows:
        store.read("num_segments", row)  # refuses frames that are not done
        if bits == 8:
            _check_fits(index.frame(row).frame_id, store.read("ids_native", row))
    for row in rows:
        native = store.read("ids_native", row)
        for slot, camera in enumerate(index.frame(row).cameras):
            if camera is not None:
                ids = native[slot, : camera.height, : camera.width].astype(dtype)
                png = cv2.imencode(".png", ids)[1].tobytes()
                write_atomically(folder / f"{camera.token}.png", png)
                count += 1
        advance()
    return count


def _check_fits(frame_id: str, ids: np.ndarray) -> None:
    largest = int(ids.max(initial=0))
    check(
        largest <= 255,
        f"{frame_id}: ids must be at most 255 to fit 8 bits, got {largest}; export with --bits 16",
    )


def check_complete(folder: Path, index: Index, rows: Sequence[int]) -> None:
    """Refuse a folder that lacks a file of the chosen frames, before a store is made for it.

    Raises:
        UserError: files are missing (says how many and which come first), or there is no folder.
    """
    check(folder.is_dir(), f"--folder {folder}: must be a folder of PNG files, got none there")
    names = {entry.name for entry in os.scandir(folder)}
    tokens = [c.token for row in rows for c in index.frame(row).cameras if c is not None]
    missing = [token for token in tokens if f"{token}.png" not in names]
    check(
        not missing,
        f"{folder}: must hold one PNG per image, named by camera token, got "
        f"{len(tokens) - len(missing)} of {len(tokens)}; missing are {', '.join(missing[:_LISTED])}"
        f"{' ...' if len(missing) > _LISTED else ''}",
    )


def check_same_masks(store: Store, index: Index, blocks: Sequence[int], folder: Path) -> None:
    """Refuse a folder of other masks than the done blocks hold; one image a block is compared.

    Which folder the files lie in is no setting of a store, so that without this an import of other
    masks under the same name would find its blocks done and import nothing.

    Raises:
        UserError: an image differs.
    """
    for block in blocks:
        readable = (row for row in store.block_rows(block) if store.missing(row) is None)
        row = next((r for r in readable if any(index.frame(r).cameras)), None)
        if row is None:
            continue
        slot, camera = next((s, c) for s, c in enumerate(index.frame(row).cameras) if c is not None)
        path = folder / f"{camera.token}.png"
        stored = store.read("ids_native", row, slot)[: camera.height, : camera.width]
        if not np.array_equal(decode_ids(path), stored):
            raise UserError(
                f"{store.path}: must hold the masks of {folder}, got others in {path.name}; import "
                "these under another --label, or replace the store with --rebuild"
            )

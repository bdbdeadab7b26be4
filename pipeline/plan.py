"""What is to do: which blocks, how many bytes, and how long by the rates that markers hold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.blocks import is_done, quarantined_frames
from pipeline.errors import check
from pipeline.index import Index
from pipeline.job import BlockTask
from pipeline.marker import read_marker
from pipeline.progress import duration
from pipeline.schema import ArraySpec
from pipeline.segment_counts import describe_counts
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.trial import Trial

NO_RATE = "no rate yet: run with --limit 1 and ask again"


@dataclass(frozen=True)
class Plan:
    """The work on one store."""

    tasks: tuple[BlockTask, ...]
    num_done: int  # blocks
    num_stale: int  # blocks to do that stand, but for other index rows or with damaged files
    num_frames: int  # to do


def choose_blocks(store: Store, rows: np.ndarray, shard: tuple[int, int] = (0, 1)) -> list[int]:
    """Return the store's blocks that hold a chosen row, as `blocks_of`."""
    return blocks_of(rows, store.header.frames_per_block, shard)


def blocks_of(rows: np.ndarray, size: int, shard: tuple[int, int] = (0, 1)) -> list[int]:
    """Return the blocks of `size` frames that hold a row, in order, those of shard i of n only.

    Raises:
        UserError: no row.
    """
    check(len(rows) > 0, "at least one frame must be chosen, got none; check --scenes and --limit")
    number, count = shard
    return [b for b in sorted({int(row) // size for row in rows}) if b % count == number]


def count_frames(blocks: Sequence[int], size: int, num_frames: int) -> int:
    """Return the frames of blocks of `size`; the last block of the data set may have fewer."""
    return sum(min(size, num_frames - block * size) for block in blocks)


def plan(
    store: Store, index: Index, blocks: Sequence[int], retry_quarantined: bool = False
) -> Plan:
    """Return the tasks that are not done yet; done blocks with quarantined frames if asked."""
    tasks, num_stale, num_frames = [], 0, 0
    for block in blocks:
        rows = store.block_rows(block)
        if not is_done(store, block, index.rows_hash(rows.start, rows.stop)):
            tasks.append(BlockTask(block))
            num_stale += store.marker_path(block).exists()
            num_frames += len(rows)
        elif retry_quarantined and (lost := quarantined_frames(store, block)):
            tasks.append(BlockTask(block, only=tuple(frame.row for frame in lost)))
            num_frames += len(lost)
    return Plan(tuple(tasks), len(blocks) - len(tasks), num_stale, num_frames)


def describe(store: Store, work: Plan) -> str:
    """Return '12 blocks done, 4 to do'."""
    stale = f" ({work.num_stale} of them again: damaged, or other index rows)"
    return (
        f"{store.path}: {work.num_done} blocks done, {len(work.tasks)} to do"
        f"{stale if work.num_stale else ''}"
    )


def estimate(store: Store, num_frames: int, num_workers: int) -> str:
    """Return what the frames will take by the store's own markers: bytes and hours."""
    seconds = stored = measured = 0
    for block in range(store.num_blocks):
        marker = read_marker(store.marker_path(block))
        if marker is not None:
            seconds += marker["seconds"]
            stored += sum(marker["bytes"].values())
            measured += marker["num_frames"]
    if not num_frames:
        return "nothing to do"
    if not measured:
        return f"{num_frames} frames, {NO_RATE}"
    time_s = seconds / measured * num_frames / num_workers
    workers = f"{num_workers} worker{'s' if num_workers > 1 else ''}"
    return (
        f"{num_frames} frames, about {show_bytes(stored / measured * num_frames)} and "
        f"{duration(time_s)} with {workers}, by {measured} frames measured"
    )


def estimate_measured(num_frames: int, num_workers: int, trial: "Trial") -> str:
    """Return what frames will take by a few images that were timed just now."""
    time_s = trial.seconds_per_frame * num_frames / num_workers
    workers = f"{num_workers} worker{'s' if num_workers > 1 else ''}"
    return (
        f"about {duration(time_s)} with {workers}, by {trial.num_images} images timed here; "
        f"{describe_counts(trial.segments)}"
    )


def estimate_new(arrays: Sequence[ArraySpec], num_frames: int) -> str:
    """Return what is known of a store that is not there yet: a bound of its bytes."""
    frame = sum(math.prod(a.frame_shape) * np.dtype(a.dtype).itemsize for a in arrays)
    return (
        f"not there yet, {num_frames} frames to do, at most {show_bytes(frame * num_frames)} "
        "before compression"
    )


def show_bytes(count: float) -> str:
    """Return a number of bytes as '1.2 GB'."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"

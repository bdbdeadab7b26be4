"""The child process that computes blocks: models stay loaded, a crash costs one frame.

It says which frame it is on before it starts on it, so that child.py knows whom to blame when it
hangs or dies. It dies with its parent: an orphan must not write into a store that a rerun owns.
"""

import ctypes
import errno
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np

from pipeline import graph
from pipeline.blocks import is_done, quarantined_frames, read_block, write_block
from pipeline.errors import UserError
from pipeline.index import read_index
from pipeline.job import EXIT_MEMORY, BlockReport, BlockTask, Job, Quarantined
from pipeline.lock import block_lock
from pipeline.manifest import load_manifest
from pipeline.schema import ArraySpec
from pipeline.store import Store, open_store


def main() -> None:
    """Serve the connection whose file number is the first argument; child.py starts this."""
    connection, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    try:
        serve(connection.recv(), connection)
    except (EOFError, ConnectionError):
        pass


def serve(job: Job, connection: Connection) -> None:
    """Answer tasks until the connection closes.

    Messages out: ('ready',), ('frame', row, frame id), ('write',), ('done', BlockReport),
    ('alive', row) and ('fatal', line, traceback). Messages in: BlockTask, or ('try', row) for one
    frame alone.
    """
    if job.limits.memory_gb is not None:  # data: address space would count what CUDA only reserves
        memory = int(job.limits.memory_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    try:
        context = open_context(job)
        connection.send(("ready",))
        while True:
            task = connection.recv()
            if isinstance(task, BlockTask):
                connection.send(("done", compute_block(job, context, task, connection)))
            else:
                row = task[1]
                connection.send(("frame", row, context.index.frame(row).frame_id))
                graph.STAGES[job.stage].fill(context, row, _slots(_blank(job.arrays, 1), 0))
                connection.send(("alive", row))
    except (EOFError, ConnectionError):  # the parent has gone
        raise
    except UserError as error:
        connection.send(("fatal", str(error), ""))
    except MemoryError:
        os._exit(EXIT_MEMORY)  # at once: there may be no memory left to unwind with
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "the disk is full; make room and rerun" if full else "mend that and rerun"
        connection.send(
            ("fatal", f"{job.store_path}: cannot write: {error.strerror}; {advice}", "")
        )
    except Exception as error:
        connection.send(("fatal", f"{type(error).__name__}: {error}", traceback.format_exc()))


def open_context(job: Job) -> graph.Context:
    """Open the index and manifest and load the source's model."""
    context = graph.Context(
        root=job.root,
        index=read_index(job.index_path),
        manifest=load_manifest(job.dataset),
        source_name=job.source_name,
        config=job.config,
        device=job.device,
    )
    if job.stage == "superpixels":
        _ = context.source
    return context


def compute_block(
    job: Job, context: graph.Context, task: BlockTask, connection: Connection
) -> BlockReport:
    """Compute a block frame by frame and write it, unless another command does or did."""
    start = time.monotonic()
    with block_lock(job.store_path, task.block) as held:
        if not held:
            return BlockReport(task.block, 0, (), 0.0, "busy")
        store = _open_same(job, context)
        rows = store.block_rows(task.block)
        rows_hash = context.index.rows_hash(rows.start, rows.stop)
        if _was_done(store, task, rows_hash):
            lost = tuple(quarantined_frames(store, task.block))
            return BlockReport(task.block, 0, lost, 0.0, "found done")
        slices, chosen = _blank(job.arrays, len(rows)), set(rows)
        if task.only is not None:
            chosen = set(task.only)
            _take_over(store, task.block, slices)
            _reset(job.arrays, slices, [row - rows.start for row in chosen])
        names = {q.row: context.index.frame(q.row).frame_id for q in task.skip}
        quarantined = {q.row: replace(q, frame_id=names[q.row]) for q in task.skip}
        for row in rows:
            if row not in chosen or row in quarantined:
                continue
            connection.send(("frame", row, context.index.frame(row).frame_id))
            failed = _fill(job, context, row, slices, row - rows.start)
            if failed:
                quarantined[row] = failed
        connection.send(("write",))
        report = write_block(
            store,
            task.block,
            slices,
            rows_hash,
            tuple(quarantined[row] for row in sorted(quarantined)),
            time.monotonic() - start,
        )
        counts = _segment_counts(context, chosen - quarantined.keys(), rows.start, slices)
    return replace(report, num_frames=len(chosen), segments=counts)


def _segment_counts(
    context: graph.Context, rows: Iterable[int], first: int, slices: dict[str, np.ndarray]
) -> tuple[int, ...]:
    """Return the superpixels of each image of these rows; nothing in the other stages."""
    if "num_segments" not in slices:
        return ()
    counts = slices["num_segments"]
    return tuple(
        int(counts[row - first, slot])
        for row in sorted(rows)
        for slot, _ in context.cameras(context.index.frame(row))
    )


def _open_same(job: Job, context: graph.Context) -> Store:
    """Open the store that the command opened.

    Raises:
        UserError: another command rebuilt it, or added frames that this run's index lacks.
    """
    store = open_store(job.store_path)
    if store.attributes["store_id"] != job.store_id:
        raise UserError(f"{store.path}: was rebuilt by another command; run again")
    if store.header.capacity.num_frames > len(context.index):
        raise UserError(f"{store.path}: has got frames from another command; run again")
    return store


def _was_done(store: Store, task: BlockTask, rows_hash: str) -> bool:
    """Return whether another command did this task since it was planned."""
    if not is_done(store, task.block, rows_hash):
        return False
    lost = {frame.row for frame in quarantined_frames(store, task.block)}
    return task.only is None or not lost & set(task.only)


def _take_over(store: Store, block: int, slices: dict[str, np.ndarray]) -> None:
    """Copy a verified block into slices, which may have become wider than it is."""
    stored, problem = read_block(store, block)
    if problem:
        raise UserError(f"{store.path}: block {block}: {problem}; run verify, then rerun")
    for name, values in stored.items():
        slices[name][tuple(slice(size) for size in values.shape)] = values


def _fill(
    job: Job, context: graph.Context, row: int, slices: dict[str, np.ndarray], position: int
) -> Quarantined | None:
    """Fill one frame's slots; a frame that raises is tried again, then given up."""
    for attempts_left in range(job.limits.retries, -1, -1):
        try:
            graph.STAGES[job.stage].fill(context, row, _slots(slices, position))
            return None
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:
            _reset(job.arrays, slices, [position])
            if not attempts_left:
                reason = str(error) if isinstance(error, UserError) else f"{error!r}"
                frame_id = context.index.frame(row).frame_id
                return Quarantined(row, frame_id, reason, traceback.format_exc())
    raise AssertionError("unreachable")


def _blank(arrays: Sequence[ArraySpec], count: int) -> dict[str, np.ndarray]:
    return {a.name: np.full((count, *a.frame_shape), a.fill, a.dtype) for a in arrays}


def _slots(slices: dict[str, np.ndarray], position: int) -> dict[str, np.ndarray]:
    # a view also of scalar slots: values[position] would be a copy there
    return {
        name: values[position : position + 1].reshape(values.shape[1:])
        for name, values in slices.items()
    }


def _reset(
    arrays: Sequence[ArraySpec], slices: dict[str, np.ndarray], positions: Sequence[int]
) -> None:
    for spec in arrays:
        slices[spec.name][list(positions)] = spec.fill


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent goes (Linux); check it still stands."""
    pr_set_pdeathsig = 1
    try:
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    except (OSError, AttributeError):  # not Linux: a closed connection ends it between blocks
        pass
    if os.getppid() != parent:
        os._exit(1)

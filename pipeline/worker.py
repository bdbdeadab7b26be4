"""The persistent child process that computes blocks: models stay loaded, a crash costs one frame.

It says which frame it is on before it starts on it, so that run.py knows whom to blame when it
hangs or dies. It dies with its parent: an orphan must not write into a store that a rerun owns.
"""

import ctypes
import errno
import os
import signal
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import graph
from pipeline.blocks import BlockReport, Quarantined, read_block, write_block
from pipeline.errors import UserError
from pipeline.index import read_index
from pipeline.manifest import load_manifest
from pipeline.schema import ArraySpec
from pipeline.store import open_store


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to open its context; small and picklable."""

    stage: str
    dataset: str
    root: Path
    index_path: Path
    store_path: Path
    source_name: str
    config: Any
    arrays: tuple[ArraySpec, ...]
    store_id: str  # of the store that the command opened; a rebuilt one is refused
    device: str = "cpu"


@dataclass(frozen=True)
class BlockTask:
    """One block to compute."""

    block: int
    skip: tuple[Quarantined, ...] = ()  # frames already given up
    only: tuple[int, ...] | None = None  # recompute these rows, the others from the verified shard


def serve(job: Job, connection: Connection, parent: int) -> None:
    """Answer tasks until the connection closes.

    Messages out: ('ready',), ('frame', row), ('done', BlockReport), ('alive', row) and
    ('fatal', line, traceback). Messages in: BlockTask, or ('try', row) for one frame alone.
    """
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    try:
        context = open_context(job)
        connection.send(("ready",))
        while True:
            task = connection.recv()
            if isinstance(task, BlockTask):
                connection.send(("done", compute_block(job, context, task, connection)))
            else:
                row = task[1]
                connection.send(("frame", row))
                graph.STAGES[job.stage].fill(context, row, _slots(_blank(job.arrays, 1), 0))
                connection.send(("alive", row))
    except (EOFError, BrokenPipeError):
        return
    except UserError as error:
        connection.send(("fatal", str(error), ""))
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
    """Compute a block frame by frame and write it."""
    start = time.monotonic()
    store = open_store(job.store_path)
    if store.attributes["store_id"] != job.store_id:
        raise UserError(f"{store.path}: was rebuilt by another command; run again")
    rows = store.block_rows(task.block)
    slices, chosen = _blank(job.arrays, len(rows)), set(rows)
    quarantined = {q.row: q for q in task.skip}
    if task.only is not None:
        slices, problem = read_block(store, task.block)
        if problem:
            raise UserError(f"{store.path}: block {task.block}: {problem}; run verify, then rerun")
        chosen = set(task.only)
        _reset(job.arrays, slices, [row - rows.start for row in chosen])
    for row in rows:
        if row not in chosen or row in quarantined:
            continue
        connection.send(("frame", row))
        failed = _fill(job, context, row, slices, row - rows.start)
        if failed:
            quarantined[row] = failed
    report = write_block(
        store,
        task.block,
        slices,
        context.index.rows_hash(rows.start, rows.stop),
        tuple(quarantined[row] for row in sorted(quarantined)),
        time.monotonic() - start,
    )
    return replace(report, num_frames=len(chosen))


def _fill(
    job: Job, context: graph.Context, row: int, slices: dict[str, np.ndarray], position: int
) -> Quarantined | None:
    """Fill one frame's slots; a frame that raises is tried once more, then given up."""
    for attempt in (1, 2):
        try:
            graph.STAGES[job.stage].fill(context, row, _slots(slices, position))
            return None
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:
            _reset(job.arrays, slices, [position])
            if attempt == 2:
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

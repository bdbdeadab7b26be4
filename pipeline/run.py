"""Run a stage's tasks over its blocks: the plain loop, the window of a cluster, progress.

Both give back small reports in the order in which blocks come to be done; what is done is known
from the markers on disk alone, so a lost report loses nothing.
"""

import collections
import contextlib
import pickle
import queue
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pipeline.child import Child
from pipeline.errors import UserError
from pipeline.job import BlockReport, BlockTask, Job, Quarantined
from pipeline.plan import Plan
from pipeline.progress import Progress
from pipeline.remote import compute_remotely, survives_remotely
from pipeline.segment_counts import describe_counts
from pipeline.store import open_store

if TYPE_CHECKING:  # 0.6 s that the plain loop need not spend
    from distributed import Future

    from pipeline.cluster import Cluster

BUSY_WAIT_S = 1.0  # before asking again for a block that another command computes
Tasks = collections.deque[BlockTask]  # more may be added while they are computed
Reports = Iterator[tuple[BlockTask, BlockReport]]


def run_tasks(job: Job, work: Plan, cluster: "Cluster | None") -> None:
    """Compute the tasks of a plan, block by block.

    Args:
        job: what the workers open.
        work: what is to do.
        cluster: where; None = here, one after the other.

    Raises:
        UserError: nothing more can be done (disk full, store rebuilt, scheduler gone).
    """
    if not work.tasks:
        return
    if cluster:
        cluster.expect_workers(job)
    progress, todo = Progress(job.stage, work.num_frames), Tasks(work.tasks)
    num_quarantined = others = 0  # others: blocks that another command computed
    busy: set[int] = set()
    counts: list[int] = []
    reports = _compute_on(cluster, job, todo) if cluster else _compute_here(job, todo, progress)
    for task, report in reports:
        if report.outcome == "busy":
            todo.append(task)
            busy.add(task.block)
            if all(left.block in busy for left in todo):
                time.sleep(BUSY_WAIT_S)
                progress.advance(0, "waiting for blocks that another command computes")
            continue
        others += report.outcome == "found done"
        num_quarantined += len(report.quarantined)
        counts += report.segments
        if cluster:
            progress.advance(report.num_frames, cluster.note())
    notes = [f"{num_quarantined} quarantined"] if num_quarantined else []
    notes += [f"{others} blocks done by another command"] if others else []
    progress.close(", ".join(notes))
    if counts:
        click.echo(f"[{job.stage}] {describe_counts(counts)}", err=True)


def _compute_here(job: Job, todo: Tasks, progress: Progress) -> Reports:
    child = Child(job)
    try:
        while todo:
            task = todo.popleft()
            yield task, child.compute(task, progress.advance)
    finally:
        child.stop()


def _compute_on(cluster: "Cluster", job: Job, todo: Tasks) -> Reports:
    """Keep at most as many blocks in flight as the workers have threads.

    A block whose worker was killed again and again is not blamed at once: Dask names every task
    that lay on the dying workers. It runs again at the end, alone.
    """
    payload = pickle.dumps(job)
    window = _Window(cluster, payload, {"GPU": 1} if job.needs_gpu else None)
    suspects = Tasks()
    while todo or window.flying or suspects:
        num_slots = cluster.num_slots(job)
        while todo and len(window.flying) < num_slots:
            window.submit(todo.popleft())
        for task, report in window.finished():
            if report is None:
                suspects.append(task)
            else:
                yield task, report
        if suspects and not todo and not window.flying:
            task = suspects.popleft()
            yield task, _compute_suspect(window, job, task)
    cluster.release(payload)


def _compute_suspect(window: "_Window", job: Job, task: BlockTask) -> BlockReport:
    """Compute a block alone; where workers die of it again, find its frames that kill them."""
    report = window.alone(compute_remotely, task)
    if report is not None:
        return report
    rows = task.only or open_store(job.store_path).block_rows(task.block)
    lost = tuple(
        Quarantined(row, "", "killed its whole worker, alone too", "")  # named by who writes it
        for row in rows
        if window.alone(survives_remotely, row) is None
    )
    report = window.alone(compute_remotely, replace(task, skip=lost)) if lost else None
    if report is None:
        raise UserError(
            f"{job.stage}: block {task.block} must be computed, got its workers killed although "
            "its frames alone are harmless; give the workers more memory"
        )
    return report


class _Window:
    """Tasks in flight on a cluster."""

    def __init__(self, cluster: "Cluster", payload: bytes, resources: dict | None) -> None:
        self.cluster, self.payload, self.resources = cluster, payload, resources
        self.flying: dict[Future, BlockTask] = {}
        # not as_completed: it may wait for ever for futures of a scheduler that died
        self._finished: queue.SimpleQueue[Future] = queue.SimpleQueue()

    def submit(self, task: BlockTask) -> None:
        future = self._send(compute_remotely, task)
        self.flying[future] = task

    def finished(self) -> list[tuple[BlockTask, BlockReport | None]]:
        """Return the task that finished first, or nothing after a while.

        Its report is None where the workers that had it were killed.
        """
        try:
            future = self._finished.get(timeout=1.0)
        except queue.Empty:
            self.cluster.check_alive()
            return []
        return [(self.flying.pop(future), self._result(future))] if future in self.flying else []

    def alone(self, function: Callable, what: BlockTask | int) -> Any:
        """Return what a function gives on a worker with nothing else in flight, None as above."""
        future = self._send(function, what)
        while future.status == "pending":
            self.cluster.check_alive()
            with contextlib.suppress(queue.Empty):
                self._finished.get(timeout=1.0)
        return self._result(future)

    def _result(self, future: "Future") -> Any:
        """Take a result off the cluster: one that stays is computed again when its worker dies."""
        from distributed.client import CancelledError
        from distributed.scheduler import KilledWorker

        try:
            return future.result()
        except KilledWorker:
            return None
        except (CancelledError, OSError) as error:
            self.cluster.check_alive()
            raise UserError(
                f"{self.cluster.address}: tasks must be left to run, got one cancelled by somebody "
                "else; run again"
            ) from error
        finally:
            future.release()

    def _send(self, function: Callable, what: BlockTask | int) -> "Future":
        future = self.cluster.client.submit(
            function,
            self.payload,
            what,
            key=f"{function.__name__}-{uuid.uuid4().hex}",
            resources=self.resources,
            pure=False,
        )
        future.add_done_callback(self._finished.put)
        return future

"""Run a stage over its blocks: what is to do, one worker process, retries, quarantine, progress."""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

import numpy as np

from pipeline.blocks import BlockReport, Quarantined, is_done, quarantined_frames
from pipeline.errors import UserError, check
from pipeline.index import Index
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.worker import BlockTask, Job, serve

START_TIMEOUT_S = 600  # importing and loading a model from a slow disk


def choose_blocks(
    store: Store, index: Index, rows: np.ndarray, shard: tuple[int, int] = (0, 1)
) -> list[int]:
    """Return the blocks that hold a chosen row, in order, those of shard i of n only."""
    size = store.header.frames_per_block
    blocks = sorted({int(row) // size for row in rows})
    check(
        bool(blocks),
        f"{store.header.dataset}: at least one frame must be chosen, got none of {len(index)}; "
        "check --scenes and --limit",
    )
    number, count = shard
    return [block for block in blocks if block % count == number]


def plan(
    store: Store, index: Index, blocks: Sequence[int], retry_quarantined: bool = False
) -> list[BlockTask]:
    """Return the tasks that are not done yet; done blocks with quarantined frames if asked."""
    tasks = []
    for block in blocks:
        rows = store.block_rows(block)
        if not is_done(store, block, index.rows_hash(rows.start, rows.stop)):
            tasks.append(BlockTask(block))
        elif retry_quarantined and (lost := quarantined_frames(store, block)):
            tasks.append(BlockTask(block, only=tuple(frame.row for frame in lost)))
    return tasks


def run_tasks(
    job: Job, tasks: Sequence[BlockTask], store: Store, index: Index, timeout_s: float
) -> None:
    """Compute the tasks one after the other in a persistent worker process.

    Args:
        job: what the worker opens.
        tasks: blocks to do.
        store: for the number of frames of each block.
        index: for the names of frames.
        timeout_s: a frame that takes longer counts as hung.
    """
    if not tasks:
        return
    num_quarantined = 0
    num_frames = sum(len(task.only or store.block_rows(task.block)) for task in tasks)
    progress = Progress(job.stage, num_frames)
    worker = _Worker(job, index, timeout_s)
    try:
        for task in tasks:
            report = worker.compute(task, progress)
            num_quarantined += len(report.quarantined)
    finally:
        worker.stop()
    progress.close(f"{num_quarantined} quarantined" if num_quarantined else "")


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set variables that a child process must find before its first import.

    One numba thread per worker: HDBSCAN's threads wait actively, so that on a busy machine of two
    cores a KITTI frame took 17 to 96 s with two threads against 4 s.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Lost(Exception):
    """The worker hung or died on a frame."""

    def __init__(self, row: int | None, how: str) -> None:
        super().__init__(how)
        self.row, self.how = row, how


class _Worker:
    """A worker process that is started again whenever it is lost."""

    def __init__(self, job: Job, index: Index, timeout_s: float) -> None:
        self.job, self.index, self.timeout_s = job, index, timeout_s
        self.process: multiprocessing.process.BaseProcess | None = None
        self.connection: Connection | None = None

    def compute(self, task: BlockTask, progress: Progress) -> BlockReport:
        """Return the block's report; frames that take the worker down are quarantined."""
        given_up = {q.row: q for q in task.skip}
        forgiven: set[int] = set()
        shown = 0
        while True:
            try:
                self._start()
                self.row = None
                self.connection.send(BlockTask(task.block, tuple(given_up.values()), task.only))
                seen = 0
                while (message := self._receive(self.timeout_s))[0] == "frame":
                    seen += 1
                    if seen > shown + 1:  # the frame before this one is complete
                        progress.advance()
                        shown += 1
                report = message[1]
                progress.advance(report.num_frames - shown)
                return report
            except _Lost as lost:
                self.stop()
                if lost.row is None:
                    raise UserError(
                        f"{self.job.stage}: worker must start and read its block, got "
                        f"'{lost.how}'; "
                        "look at the messages above, or run with more memory or --timeout"
                    ) from lost
                if lost.row in forgiven or not self._survives(lost.row):
                    name = self.index.frame(lost.row).frame_id
                    given_up[lost.row] = Quarantined(lost.row, name, f"{lost.how}, twice", "")
                forgiven.add(lost.row)

    def _survives(self, row: int) -> bool:
        """Try one frame alone in a fresh process."""
        try:
            self._start()
            self.connection.send(("try", row))
            while self._receive(self.timeout_s)[0] != "alive":
                pass
            return True
        except (_Lost, UserError, RuntimeError):
            self.stop()
            return False

    def _start(self) -> None:
        if self.process is not None:
            return
        # spawn: a forked child would inherit numba's and zarr's threads in an unknown state
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(self.job, theirs, os.getpid()), daemon=True
        )
        with _environment(NUMBA_NUM_THREADS="1"):
            self.process.start()
        theirs.close()
        self.row: int | None = None
        self._receive(START_TIMEOUT_S)

    def _receive(self, timeout_s: float) -> tuple:
        """Return the next message.

        Raises:
            _Lost: the worker hangs or is gone.
            UserError: it says that nothing more can be done.
        """
        try:
            if not self.connection.poll(timeout_s):
                raise _Lost(self.row, f"took longer than {timeout_s:g} s")
            message = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            self.process.join(5)
            raise _Lost(self.row, f"killed its process (exit {self.process.exitcode})") from error
        if message[0] == "frame":
            self.row = message[1]
        if message[0] == "fatal":
            if message[2]:
                raise RuntimeError(f"{message[1]}\n{message[2]}")
            raise UserError(message[1])
        return message

    def stop(self) -> None:
        """End the process; a later compute starts another."""
        if self.process is not None:
            self.connection.close()
            self.process.kill()
            self.process.join()
            self.process = None

"""A child process that computes blocks, started again whenever a frame takes it down.

Whoever computes has one: the plain loop, and every thread of a Dask worker. A frame that raises is
the child's own business (worker.py); one that hangs past its time-out or kills the child is found
here by the last message, tried again alone, and quarantined.
"""

import collections
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.errors import UserError
from pipeline.job import EXIT_MEMORY, BlockReport, BlockTask, Job, Quarantined

START_TIMEOUT_S = 600  # importing and loading a model from a slow disk; writing a block to one
REPOSITORY = Path(__file__).resolve().parents[1]


class _Lost(Exception):
    """The child hung or died, on a frame or (row None) while it started or wrote."""

    def __init__(self, row: int | None, frame_id: str, how: str) -> None:
        super().__init__(how)
        self.row, self.frame_id, self.how = row, frame_id, how


class Child:
    """A child process for one job. Not for several threads at once."""

    def __init__(self, job: Job) -> None:
        """Remember the job; the process starts with the first task."""
        self.job = job
        self.process: subprocess.Popen | None = None
        self.connection: Connection | None = None
        self._on: tuple[int | None, str] = (None, "")  # the frame it is on

    def compute(
        self, task: BlockTask, on_frames: Callable[[int], None] = lambda count: None
    ) -> BlockReport:
        """Return the block's report; frames that take the child down are quarantined.

        Args:
            task: what to compute.
            on_frames: called with the number of frames that came to be done, for progress.

        Raises:
            UserError: nothing more can be done here (disk full, store rebuilt, no start).
        """
        given_up = {q.row: q for q in task.skip}
        losses: collections.Counter[int | None] = collections.Counter()
        shown = 0
        while True:
            try:
                self._start()
                self.connection.send(BlockTask(task.block, tuple(given_up.values()), task.only))
                seen = 0
                while (message := self._receive())[0] != "done":
                    seen += message[0] == "frame"
                    if seen > shown + 1:  # the frame before this one is complete
                        on_frames(1)
                        shown += 1
                on_frames(max(message[1].num_frames - shown, 0))
                return message[1]
            except _Lost as lost:
                self.stop()
                losses[lost.row] += 1
                if lost.row is None:
                    self._check_starts(losses[None], lost)
                    continue
                while losses[lost.row] <= self.job.limits.retries and not self._survives(lost.row):
                    losses[lost.row] += 1
                if losses[lost.row] > self.job.limits.retries:
                    reason = f"{lost.how} (tries: {losses[lost.row]})"
                    given_up[lost.row] = Quarantined(lost.row, lost.frame_id, reason, "")
            except BaseException:
                self.stop()
                raise

    def survives(self, row: int) -> bool:
        """Return whether a frame can be computed, alone and without writing it."""
        self.stop()
        return self._survives(row)

    def stop(self) -> None:
        """End the process; a later compute starts another."""
        if self.process is not None:
            self.connection.close()
            self.process.kill()
            self.process.wait()
            self.process = None

    def _survives(self, row: int) -> bool:
        try:
            self._start()
            self.connection.send(("try", row))
            while self._receive()[0] != "alive":
                pass
            return True
        except (_Lost, UserError, RuntimeError):
            self.stop()
            return False

    def _check_starts(self, losses: int, lost: _Lost) -> None:
        if losses > self.job.limits.retries:
            raise UserError(
                f"{self.job.stage}: worker must start and read its block, got '{lost.how}'; look "
                "at the messages above, or run with more memory"
            ) from lost

    def _start(self) -> None:
        """Start the process, unless it runs.

        No fork: a forked child would inherit numba's and zarr's threads in an unknown state. No
        multiprocessing either: a Dask worker is a daemon, which may not have children by it.
        """
        self._on = None, ""
        if self.process is not None:
            return
        self.connection, theirs = multiprocessing.Pipe()
        search = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from pipeline.worker import main; main()"),
                    *(str(theirs.fileno()), str(os.getpid())),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
            )
        try:
            self.connection.send(self.job)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died at once; _receive says how
        self._receive()

    def _receive(self) -> tuple:
        """Return the next message.

        Raises:
            _Lost: the child hangs or is gone.
            UserError: it says that nothing more can be done.
        """
        on_frame = self._on[0] is not None
        timeout_s = self.job.limits.frame_timeout_s if on_frame else START_TIMEOUT_S
        try:
            if not self.connection.poll(timeout_s):
                raise _Lost(*self._on, f"took longer than {timeout_s:g} s")
            message = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise _Lost(*self._on, self._last_words()) from error
        if message[0] == "frame":
            self._on = message[1], message[2]
        else:
            self._on = None, ""
        if message[0] == "fatal":
            if message[2]:
                raise RuntimeError(f"{message[1]}\n{message[2]}")
            raise UserError(message[1])
        return message

    def _last_words(self) -> str:
        """Return how the process ended."""
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if code == EXIT_MEMORY:
            limit = self.job.limits.memory_gb
            return f"needed more memory than {'there is' if limit is None else f'{limit:g} GB'}"
        if code < 0:
            name = signal.Signals(-code).name
            often = ", often for want of memory" if name == "SIGKILL" else ""
            return f"killed its process ({name}{often})"
        return f"killed its process (exit {code})"

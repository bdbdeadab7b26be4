"""Progress with rate and ETA: a live line on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable


class Progress:
    """Counts units done and says so on standard error, at most every `interval_s` seconds."""

    def __init__(
        self,
        what: str,
        total: int,
        unit: str = "frames",
        interval_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock; `interval_s` defaults to 0.2 on a terminal and 15 in a log file."""
        self.what, self.total, self.unit, self.clock = what, total, unit, clock
        self.is_terminal = sys.stderr.isatty()
        self.interval_s = interval_s or (0.2 if self.is_terminal else 15.0)
        self.done = 0
        self.start_s = self.shown_s = clock()

    def line(self, note: str = "") -> str:
        """Return '[what] 12/40 frames, 3.1 frames/s, 0:00:09 left'."""
        elapsed_s = max(self.clock() - self.start_s, 1e-9)
        rate = self.done / elapsed_s
        left = duration((self.total - self.done) / rate) + " left" if self.done else "starting"
        note = f", {note}" if note else ""
        count = f"{self.done}/{self.total} {self.unit}"
        return f"[{self.what}] {count}, {rate:.3g} {self.unit}/s, {left}{note}"

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` done units and show the line if it is due."""
        self.done += count
        if self.clock() - self.shown_s >= self.interval_s:
            self.shown_s = self.clock()
            end = "\x1b[K\r" if self.is_terminal else "\n"
            print(self.line(note), end=end, file=sys.stderr, flush=True)

    def close(self, note: str = "") -> None:
        """Show the final line: how much, how long, how fast."""
        elapsed_s = max(self.clock() - self.start_s, 1e-9)
        note = f", {note}" if note else ""
        clear = "\x1b[K" if self.is_terminal else ""
        print(
            f"{clear}[{self.what}] {self.done} {self.unit} in {duration(elapsed_s)}, "
            f"{self.done / elapsed_s:.3g} {self.unit}/s{note}",
            file=sys.stderr,
            flush=True,
        )


def duration(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    whole = int(round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"

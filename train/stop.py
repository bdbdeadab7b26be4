"""Being told to stop: SIGTERM only sets a flag, the loop looks at it between two steps.

SLURM sends it before a job's time is over, torchrun passes it on to its processes.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """Training was told to stop, and saved first."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM has come; the old handler returns after."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)

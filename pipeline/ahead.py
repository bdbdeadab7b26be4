"""Make the next results while one is used: the next image, the next pieces of a table."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# for work that lets go of the interpreter's lock
THREADS = min(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1, 4)
T = TypeVar("T")


def ahead(calls: Iterable[Callable[[], T]], depth: int = 2, threads: int = 1) -> Iterator[T]:
    """Yield the results of calls in order, while `threads` make up to `depth` of the next ones.

    An error is raised where its result is due. Only within one frame: what a frame of a recording
    does to its reader must not be blamed on the frame before it.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[T]] = []
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) > depth:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()

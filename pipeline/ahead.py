"""Read the next image while one is computed."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(calls: Iterable[Callable[[], T]], depth: int = 2) -> Iterator[T]:
    """Yield the results of calls in order, while a thread makes up to `depth` of the next ones.

    An error is raised where its result is due. Only within one frame: what a frame of a recording
    does to its reader must not be blamed on the frame before it.
    """
    with ThreadPoolExecutor(1) as thread:
        waiting: list[Future[T]] = []
        for call in calls:
            waiting.append(thread.submit(call))
            if len(waiting) > depth:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()

"""Batches that shrink where memory is short."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


class Batches:
    """Cuts work into batches of at most `size`; halves it, for good, when a batch does not fit."""

    def __init__(self, what: str, size: int, say: Callable[[str], None]) -> None:
        """Start with a size; `say` gets one line per halving."""
        self.what, self.size, self.say = what, size, say

    def run(self, function: Callable[[Any], Sequence[Any]], items: Any) -> list[Any]:
        """Return the results of all batches, joined.

        Args:
            function: takes consecutive items, returns results.
            items: anything with a length and slices.

        Raises:
            torch.OutOfMemoryError: not even one item fits.
        """
        results: list[Any] = []
        start = 0
        while start < len(items):
            part = items[start : start + self.size]
            try:
                results += function(part)
                start += len(part)
                continue
            except torch.OutOfMemoryError:
                if self.size == 1:
                    raise
            # outside of the handler: the error holds the frames that hold the memory
            self.size = (min(self.size, len(part)) + 1) // 2
            torch.cuda.empty_cache()
            self.say(f"{self.what}: out of memory, {self.size} at a time from now on")
        return results

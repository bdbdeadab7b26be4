"""Finds where the host would wait for a GPU, on a machine without one.

Every operation whose result's shape, or whose Python value, depends on what is in a tensor makes
the host wait until the device has computed it. Inside `no_waiting` such operations raise; the
engine's one permitted way to ask, `read_counts`, is let through and counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from train.engines import coordinate_map, levels

ASKING_OPERATORS = (
    "_local_scalar_dense",
    "nonzero",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "masked_select",
    "bincount",
    "equal",
)
ASKING_METHODS = ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__")


class Forbid(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ASKING_OPERATORS, f"{name} makes the host wait"
        if name in ("index", "index_put", "index_put_"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, "indexing with a mask makes the host wait"
        if name == "repeat_interleave":
            assert (kwargs or {}).get("output_size") is not None, "repeat_interleave without a size"
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Yield a list that gets the number of numbers of every permitted read."""
    reads: list[int] = []
    allowed = [False]

    def guarded(name):
        method = getattr(torch.Tensor, name)

        def call(*args, **kwargs):
            assert allowed[0], f"Tensor.{name} makes the host wait"
            return method(*args, **kwargs)

        return call

    def read(parts):
        reads.append(sum(len(part) for part in parts))
        allowed[0] = True
        try:
            return levels.read_counts(parts)
        finally:
            allowed[0] = False

    with monkeypatch.context() as patch:
        for name in ASKING_METHODS:
            patch.setattr(torch.Tensor, name, guarded(name))
        patch.setattr(coordinate_map, "read_counts", read)
        patch.setattr(levels, "true_places", levels.places_of_known_count)
        patch.setattr("train.engines.kernel_map.true_places", levels.places_of_known_count)
        with Forbid():
            yield reads

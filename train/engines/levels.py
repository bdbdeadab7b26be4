"""Voxels of one stride as sorted int64 keys, so that all else is a sort or a binary search.

A GPU that must tell the host a number stops until it has. So what depends on a number of voxels or
pairs is made in two steps, a draft and its finish, and `read_counts` between them, which reads the
numbers of many drafts at once, is the only place where numbers come to the host.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import check

MARGIN = 16  # empty cells around a cloud, so that no neighbor's key wraps into the next row


def read_counts(parts: list[Tensor]) -> list[list[int]]:
    """Bring 1-d int64 tensors to the host, in one transfer."""
    numbers, read = iter(torch.cat(parts).tolist()), []
    for part in parts:
        read.append([next(numbers) for _ in range(len(part))])
    return read


def true_places(mask: Tensor, count: int) -> Tensor:
    """Return the positions [count] of the True entries of a flat mask that has `count` of them."""
    if mask.device.type == "cpu":  # nothing to wait for, and quicker: a sweep's maps 47 ms, not 50
        return mask.nonzero()[:, 0]
    return places_of_known_count(mask, count)


def places_of_known_count(mask: Tensor, count: int) -> Tensor:
    """Return what `true_places` does; the host, which knows the count, waits for nothing."""
    return torch.repeat_interleave(mask.int(), output_size=count)


def first_of_each(keys: Tensor) -> Tensor:
    """Return which of the ascending keys [V] differ from the one before, [V] bool."""
    return F.pad(keys[1:] != keys[:-1], (1, 0), value=True)[: len(keys)]


@dataclass(frozen=True)
class Grid:
    """Numbers the cells of a box: cells in, int64 keys out, in lexicographic order."""

    low: tuple[int, ...]  # batch, x, y, z of the first cell, margin included
    extent: tuple[int, ...]

    @staticmethod
    def around(low: list[int], high: list[int]) -> "Grid":
        """Return the grid of the cells low..high (batch, x, y, z), with a margin in space."""
        margins = (0, MARGIN, MARGIN, MARGIN)
        first = tuple(a - m for a, m in zip(low, margins, strict=True))
        extent = tuple(b + m - a + 1 for a, b, m in zip(first, high, margins, strict=True))
        volume = extent[0] * extent[1] * extent[2] * extent[3]
        check(
            volume < 2**63,
            f"coordinates: span {list(extent)} cells (batch, x, y, z), more than 2^63 in all; "
            "drop far points or use larger voxels",
        )
        return Grid(first, extent)

    def keys(self, cells: Tensor) -> Tensor:
        """Return the keys [V] of cells [V, 4]."""
        key = cells[:, 0] - self.low[0]
        for axis in (1, 2, 3):
            key = key * self.extent[axis] + (cells[:, axis] - self.low[axis])
        return key

    def cells(self, keys: Tensor) -> Tensor:
        """Return the cells [V, 4] of keys [V]."""
        columns = []
        for axis in (3, 2, 1):
            columns.append(keys % self.extent[axis] + self.low[axis])
            keys = torch.div(keys, self.extent[axis], rounding_mode="floor")
        return torch.stack([keys + self.low[0], *reversed(columns)], dim=1)


@dataclass(frozen=True)
class Level:
    """The voxels of one stride, in row order and in key order."""

    grid: Grid
    cells: Tensor  # [V, 4] int64: batch, and x, y, z in units of this level's stride
    keys: Tensor  # [V] int64, ascending
    rows: Tensor  # [V] int64, the row of each key

    def coarser(self, stride: int) -> "Draft":
        """Return the draft of the level whose voxels hold `stride` of these along each axis."""
        steps = (1, stride, stride, stride)
        high = [a + e - 1 - m for a, e, m in zip(*self._box, strict=True)]
        low = [a + m for a, _, m in zip(*self._box, strict=True)]
        grid = Grid.around(
            [a // s for a, s in zip(low, steps, strict=True)],
            [b // s for b, s in zip(high, steps, strict=True)],
        )
        space = torch.div(self.cells[:, 1:], stride, rounding_mode="floor")
        keys = torch.sort(grid.keys(torch.cat([self.cells[:, :1], space], dim=1))).values
        return Draft(grid, keys, first_of_each(keys))

    @property
    def _box(self) -> tuple[tuple[int, ...], ...]:
        return self.grid.low, self.grid.extent, (0, MARGIN, MARGIN, MARGIN)


@dataclass(frozen=True)
class Draft:
    """A level whose number of voxels the host does not know yet."""

    grid: Grid
    keys: Tensor  # [finer V] int64, ascending, repeated
    is_first: Tensor  # [finer V] bool, the first of equal keys

    def finish(self, num_voxels: int) -> Level:
        """Return the level."""
        keys = self.keys[true_places(self.is_first, num_voxels)]
        return Level(
            self.grid, self.grid.cells(keys), keys, torch.arange(num_voxels, device=keys.device)
        )

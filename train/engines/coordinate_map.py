"""The native engine's geometry: voxels in, which row meets which under every kernel offset out.

Voxels become sorted int64 keys, so that everything is a sort or a binary search on whatever device
the voxels are. Levels and kernel maps are built when first needed and kept with the cloud: a U-Net
asks for each of its maps up to twelve times a step.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import check

MARGIN = 16  # empty cells around a cloud, so that no neighbor's key wraps into the next row


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

    def coarser(self, stride: int) -> "Level":
        """Return the level whose voxels hold `stride` of these along each axis."""
        steps = (1, stride, stride, stride)
        high = [a + e - 1 - m for a, e, m in zip(*self._box, strict=True)]
        low = [a + m for a, _, m in zip(*self._box, strict=True)]
        grid = Grid.around(
            [a // s for a, s in zip(low, steps, strict=True)],
            [b // s for b, s in zip(high, steps, strict=True)],
        )
        steps = torch.tensor(steps, device=self.cells.device)
        keys = torch.unique(grid.keys(torch.div(self.cells, steps, rounding_mode="floor")))
        return Level(grid, grid.cells(keys), keys, torch.arange(len(keys), device=keys.device))

    @property
    def _box(self) -> tuple[tuple[int, ...], ...]:
        return self.grid.low, self.grid.extent, (0, MARGIN, MARGIN, MARGIN)


class Side:
    """One end of a kernel map: the row of every pair, by offset, and the pairs of every row."""

    def __init__(self, rows: Tensor, counts: list[int], num_rows: int, center: int | None) -> None:
        self.rows, self.counts, self.num_rows = rows, counts, num_rows
        self.by_offset = rows.split(counts)  # per offset the rows [pairs of it]
        self.center = center  # the offset, if any, that pairs every row with itself, in order

    def new_buffer(self, features: Tensor) -> Tensor:
        """Return room for what `gather` returns, allocated once per call, not once per offset."""
        return features.new_empty(max(self.counts), features.shape[1])

    def gather(self, features: Tensor, offset: int, buffer: Tensor) -> Tensor:
        """Return the features of an offset's rows [pairs of it, D]: in the buffer, or as given."""
        if offset == self.center:
            return features
        rows = self.by_offset[offset]
        return torch.index_select(features, 0, rows, out=buffer[: len(rows)])

    @cached_property
    def pairs_by_row(self) -> tuple[Tensor, Tensor]:
        """Return pair numbers sorted by row [P] and where each row's start [V + 1]."""
        pairs = torch.argsort(self.rows, stable=True)
        ends = torch.bincount(self.rows, minlength=self.num_rows).cumsum(0)
        return pairs, F.pad(ends, (1, 0))

    def add_up(self, products: Tensor) -> Tensor:
        """Sum the products of the pairs [P, D] per row: [V, D]."""
        pairs, starts = self.pairs_by_row
        return F.embedding_bag(pairs, products, starts, mode="sum", include_last_offset=True)


@dataclass(frozen=True)
class KernelMap:
    """The pairs (finer row, coarser row) that each kernel offset joins, ordered by offset."""

    fine: Side
    coarse: Side


def find_pairs(fine: Level, coarse: Level, stride: int, kernel_size: int) -> KernelMap:
    """Return for every kernel offset the voxels of `fine` around each voxel of `coarse`.

    The keys of a kernel column (the offsets along z at one x, y) are consecutive numbers, so one
    binary search finds where a column would start and the rest follows by stepping on.
    """
    first = -(kernel_size // 2) if kernel_size % 2 else 0
    steps = torch.arange(first, first + kernel_size, device=fine.keys.device)
    scale = torch.tensor((1, stride, stride, stride), device=fine.keys.device)
    center = fine.grid.keys(coarse.cells * scale)  # [V]
    column = steps[None, :] * fine.grid.extent[2] + steps[:, None]  # [y, x], x fastest
    wanted = center + (column.reshape(-1, 1) * fine.grid.extent[3] + first)  # [K * K, V]
    keys = F.pad(fine.keys, (0, 1), value=-1)  # -1: past the last key, equals nothing wanted
    place = torch.searchsorted(fine.keys, wanted)
    places, hits = [], []
    for _ in range(kernel_size):
        hit = keys[place] == wanted
        places.append(place)
        hits.append(hit)
        place = place + hit
        wanted = wanted + 1
    hit = torch.stack(hits).view(kernel_size**3, -1)  # [K^3, V], offsets in kernel order
    coarse_rows = hit.nonzero()[:, 1]
    fine_rows = fine.rows[torch.stack(places).view(hit.shape)[hit]]
    counts = hit.sum(1).tolist()
    center = kernel_size**3 // 2 if kernel_size % 2 and stride == 1 else None
    return KernelMap(
        Side(fine_rows, counts, len(fine.keys), center),
        Side(coarse_rows, counts, len(coarse.keys), center),
    )


@dataclass(frozen=True)
class CoordinateMap:
    """All levels of one cloud and the kernel maps between them, each built when first needed."""

    levels: dict[int, Level]  # by stride
    kernel_maps: dict[tuple[int, int, int], KernelMap] = field(default_factory=dict)

    def level(self, stride: int, finer: int) -> Level:
        """Return the level of `stride`, made from the one of stride `finer` if need be."""
        if stride not in self.levels:
            self.levels[stride] = self.levels[finer].coarser(stride // finer)
        return self.levels[stride]

    def kernel_map(self, finer: int, coarser: int, kernel_size: int) -> KernelMap:
        """Return the pairs between two levels."""
        key = (finer, coarser, kernel_size)
        if key not in self.kernel_maps:
            coarse = self.level(coarser, finer)
            self.kernel_maps[key] = find_pairs(
                self.levels[finer], coarse, coarser // finer, kernel_size
            )
        return self.kernel_maps[key]

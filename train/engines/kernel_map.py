"""Which row meets which under every offset of a kernel, from the levels at its two ends.

The pairs are ordered by offset, so that one GEMM per offset multiplies them.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from train.engines.levels import Level, true_places


class Side:
    """One end of a kernel map: the row of every pair, by offset, and the pairs of every row."""

    def __init__(
        self, rows: Tensor, counts: list[int], ends: Tensor, num_rows: int, center: int | None
    ) -> None:
        self.rows, self.counts, self.num_rows = rows, counts, num_rows  # rows: int32, by offset
        self.ends = ends  # [K^3] int32, where each offset's pairs end, on the rows' device
        self.by_offset = rows.split(counts)  # per offset the rows [pairs of it]
        self.center = center  # the offset, if any, that pairs every row with itself, in order
        self._table: Tensor | None = None

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
        rows = self.rows.long()
        counts = rows.new_zeros(self.num_rows).scatter_add_(
            0, rows, torch.ones_like(rows)
        )  # as bincount, which reads the largest row to the host
        return pairs, F.pad(counts.cumsum(0), (1, 0))

    def table_of(self, other: "Side") -> Tensor:
        """Return the other end's row that meets each row here under each offset, -1 = none.

        Args:
            other: the other end of the kernel map, always the same.

        Returns:
            [K^3, V] int32.
        """
        if self._table is None:
            pair = torch.arange(len(self.rows), device=self.rows.device)
            place = torch.bucketize(pair, self.ends, right=True)  # the offset of each pair
            place.mul_(self.num_rows).add_(self.rows)
            table = self.rows.new_full((len(self.counts) * self.num_rows,), -1)
            table[place] = other.rows
            self._table = table.view(len(self.counts), self.num_rows)
        return self._table

    def add_up(self, products: Tensor) -> Tensor:
        """Sum the products of the pairs [P, D] per row: [V, D]."""
        pairs, starts = self.pairs_by_row
        return F.embedding_bag(pairs, products, starts, mode="sum", include_last_offset=True)


@dataclass(frozen=True)
class KernelMap:
    """The pairs (finer row, coarser row) that each kernel offset joins, ordered by offset."""

    fine: Side
    coarse: Side


@dataclass(frozen=True)
class Hits:
    """A kernel map whose number of pairs the host does not know yet."""

    fine: Level
    coarse: Level
    places: Tensor  # [K^3, V] int64, where in fine.keys each offset of a coarse voxel would be
    hit: Tensor  # [K^3, V] bool, whether it is there; offsets in kernel order
    counts: Tensor  # [K^3] int64
    center: int | None

    def finish(self, counts: list[int]) -> KernelMap:
        """Return the kernel map."""
        found = true_places(self.hit.view(-1), sum(counts))
        coarse_rows = (found % max(len(self.coarse.keys), 1)).int()
        fine_rows = self.fine.rows[self.places.view(-1)[found]].int()
        ends = self.counts.cumsum(0).int()
        return KernelMap(
            Side(fine_rows, counts, ends, len(self.fine.keys), self.center),
            Side(coarse_rows, counts, ends, len(self.coarse.keys), self.center),
        )


def find_pairs(fine: Level, coarse: Level, stride: int, kernel_size: int) -> Hits:
    """Look for the voxels of `fine` around each voxel of `coarse` under every kernel offset.

    The keys of a kernel column (the offsets along z at one x, y) are consecutive numbers, so one
    binary search finds where a column would start and the rest follows by stepping on.
    """
    first = -(kernel_size // 2) if kernel_size % 2 else 0
    steps = torch.arange(first, first + kernel_size, device=fine.keys.device)
    corner = torch.cat([coarse.cells[:, :1], coarse.cells[:, 1:] * stride], dim=1)
    column = steps[None, :] * fine.grid.extent[2] + steps[:, None]  # [y, x], x fastest
    wanted = fine.grid.keys(corner) + (column.reshape(-1, 1) * fine.grid.extent[3] + first)
    keys = F.pad(fine.keys, (0, 1), value=-1)  # -1: past the last key, equals nothing wanted
    place = torch.searchsorted(fine.keys, wanted)  # [K * K, V]
    places, hits = [], []
    for _ in range(kernel_size):
        hit = keys[place] == wanted
        places.append(place)
        hits.append(hit)
        place = place + hit
        wanted = wanted + 1
    hit = torch.stack(hits).view(kernel_size**3, -1)
    center = kernel_size**3 // 2 if kernel_size % 2 and stride == 1 else None
    return Hits(fine, coarse, torch.stack(places).view(hit.shape), hit, hit.sum(1), center)

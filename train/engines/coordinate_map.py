"""The native engine's geometry of one cloud: its levels and kernel maps.

They are built when first needed, or all at once when the network says what it will ask for, and
kept with the cloud: a U-Net asks for each of its maps up to twelve times a step. Built at once,
numbers come to the host three times a cloud, which a GPU would feel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from train.engines.contract import MapKey, check_unique
from train.engines.kernel_map import KernelMap, find_pairs
from train.engines.levels import Grid, Level, first_of_each, read_counts


@dataclass(frozen=True)
class CoordinateMap:
    """All levels of one cloud and the kernel maps between them, each built when first needed."""

    levels: dict[int, Level]  # by stride
    kernel_maps: dict[MapKey, KernelMap] = field(default_factory=dict)

    @staticmethod
    def of_cells(cells: Tensor, wanted: Sequence[MapKey] = ()) -> "CoordinateMap":
        """Return the map of cells [V, 4] int64 with the levels and kernel maps of `wanted` built.

        Raises:
            UserError: two rows in one voxel, or a span too large to number.
        """
        low, high = [0, 0, 0, 0], [0, 0, 0, 0]
        if len(cells):
            low, high = read_counts(list(torch.aminmax(cells, dim=0)))
        grid = Grid.around(low, high)
        keys, rows = torch.sort(grid.keys(cells))
        whole = Level(grid, cells, keys, rows)
        drafts = {s: whole.coarser(s) for s in dict.fromkeys(key[1] for key in wanted) if s != 1}
        firsts = [first_of_each(keys), *(draft.is_first for draft in drafts.values())]
        (num_voxels, *others) = read_counts([torch.stack([first.sum() for first in firsts])])[0]
        check_unique(len(keys), num_voxels)
        finished = {
            s: draft.finish(n) for (s, draft), n in zip(drafts.items(), others, strict=True)
        }
        cloud = CoordinateMap({1: whole, **finished})
        cloud._build(wanted)
        return cloud

    def level(self, stride: int, finer: int) -> Level:
        """Return the level of `stride`, made from the one of stride `finer` if need be."""
        if stride not in self.levels:
            draft = self.levels[finer].coarser(stride // finer)
            ((num_voxels,),) = read_counts([draft.is_first.sum().view(1)])
            self.levels[stride] = draft.finish(num_voxels)
        return self.levels[stride]

    def kernel_map(self, finer: int, coarser: int, kernel_size: int) -> KernelMap:
        """Return the pairs between two levels."""
        key = (finer, coarser, kernel_size)
        if key not in self.kernel_maps:
            self.level(coarser, finer)
            self._build([key])
        return self.kernel_maps[key]

    def _build(self, keys: Sequence[MapKey]) -> None:
        hits = {
            key: find_pairs(self.levels[key[0]], self.levels[key[1]], key[1] // key[0], key[2])
            for key in keys
        }
        counts = read_counts([each.counts for each in hits.values()]) if hits else []
        for (key, each), numbers in zip(hits.items(), counts, strict=True):
            self.kernel_maps[key] = each.finish(numbers)

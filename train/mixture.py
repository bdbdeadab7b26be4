"""Several data sets in one pretraining: which frame of which set comes next.

In: the rows of each set and how much each counts. Out: the order of an epoch. An epoch has as many
samples as the sets have frames together; a set with a small share goes on in the next epoch where
it stopped, so that all of its frames are seen in the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import check
from train.stores import StorePaths, Stores

WINDOW_BLOCKS = 8  # frames are shuffled within this many consecutive blocks of a shuffled order
BLOCK_FRAMES = 32


@dataclass(frozen=True)
class Part:
    """One data set of a run."""

    paths: StorePaths
    rows: np.ndarray  # [R] index rows


def epoch_order(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the rows in the order of an epoch: blocks shuffled, then frames within windows.

    Args:
        rows: [R] index rows.
        seed: of the run.
        epoch: number of the epoch, from 0.
    """
    rng = np.random.default_rng((seed, epoch))
    blocks = np.unique(rows // BLOCK_FRAMES)
    rng.shuffle(blocks)
    place = {block: at for at, block in enumerate(blocks.tolist())}
    at = np.array([place[block] for block in (rows // BLOCK_FRAMES).tolist()])
    return rows[np.lexsort((rng.random(len(rows)), at // WINDOW_BLOCKS))]


def mixed_order(
    rows: Sequence[np.ndarray], weights: tuple[float, ...], seed: int, epoch: int
) -> list[tuple[int, int]]:
    """Return the (set, row) pairs of an epoch.

    Args:
        rows: [R] index rows of each set.
        weights: of each set's share of the samples; () = in proportion to the frames.
        seed: of the run.
        epoch: number of the epoch, from 0.
    """
    if len(rows) == 1:
        return [(0, row) for row in epoch_order(rows[0], seed, epoch).tolist()]
    counts = shares([len(each) for each in rows], weights)
    streams = []
    for each, count in zip(rows, counts, strict=True):
        first, last = epoch * count, (epoch + 1) * count
        passes = range(first // len(each), -(-last // len(each)))
        order = [epoch_order(each, seed, number) for number in passes] or [each[:0]]
        start = first - first // len(each) * len(each)
        streams.append(iter(np.concatenate(order)[start : start + count].tolist()))
    which = np.repeat(np.arange(len(rows)), counts)
    np.random.default_rng((seed, epoch, 1)).shuffle(which)
    return [(part, next(streams[part])) for part in which.tolist()]


def shares(sizes: list[int], weights: tuple[float, ...]) -> list[int]:
    """Return how many samples of an epoch each set gives; they add up to the frames of all.

    Args:
        sizes: frames of each set.
        weights: relative; () = the sizes.
    """
    weights = weights or tuple(map(float, sizes))
    bounds = np.cumsum(weights) / sum(weights) * sum(sizes)
    return np.diff(np.rint(bounds).astype(int), prepend=0).tolist()


def check_mixture(stores: Sequence[Stores], weights: tuple[float, ...]) -> None:
    """Check that data sets can be trained on together.

    Raises:
        UserError: the weights are not one positive number per set, or raw intensities differ in
            scale.
    """
    names = ", ".join(each.paths.folder.name for each in stores)
    check(
        not weights or (len(weights) == len(stores) and min(weights) > 0),
        f"dataset_weights: must be {len(stores)} numbers above 0 ({names}), got {weights}; "
        "give one per data set, or none",
    )
    intensity = stores[0].paths.intensity
    scales = [each.intensity_scale for each in stores]
    shown = ", ".join(f"up to {s.max:g}, {s.offset:+g}, {s.squash}" for s in scales)
    check(
        intensity == "normalized" or len(set(scales)) == 1,
        f"--intensity: must be normalized for data sets with other scales, offsets or squashing "
        f"({names}: {shown}), got {intensity}; add --intensity normalized",
    )

"""Stores in, batches out, in an order that only (seed, epoch) decides.

A sample's randomness is keyed by (seed, epoch, position in the epoch), never by the worker, so any
number of workers gives the same batches. Workers are forked by a fork server that never opened a
store (zarr's threads do not survive a fork) and open their own stores.
"""

import copy
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import UserError
from train.augment import augment_cloud, augment_pretrain
from train.batch import Batch, Sample, collate, make_cloud, make_sample
from train.mixture import Part, mixed_order
from train.recipes import Recipe
from train.stores import StorePaths, Stores


def pretrain_stages(recipe: Recipe) -> tuple[str, ...]:
    """Return the stages whose stores a recipe reads."""
    needs_segments = "segments" in recipe.losses.reads
    return ("frames", "superpixels", "projections") + (("segments",) if needs_segments else ())


class PairDataset(Dataset):
    """Samples by (epoch, position, part, row)."""

    def __init__(self, places: tuple[StorePaths, ...], recipe: Recipe) -> None:
        self.places, self.recipe = places, recipe
        self._stores: tuple[Stores, ...] = ()

    def __getitem__(self, key: tuple[int, int, int, int]) -> Sample | UserError:
        """Return one augmented sample; an error as a value, so that its one line stays one."""
        if not self._stores:
            self._stores = tuple(Stores(paths) for paths in self.places)
        epoch, position, part, row = key
        try:
            return load_sample(self._stores[part], self.recipe, epoch, position, row)
        except UserError as error:
            return error


def load_sample(stores: Stores, recipe: Recipe, epoch: int, position: int, row: int) -> Sample:
    """Read, pair and augment one frame that has images and, where a loss needs it, its successor.

    Raises:
        UserError: a store lacks the frame.
    """
    rng = np.random.default_rng((recipe.seed, epoch, position))
    with_segments = "segments" in pretrain_stages(recipe)
    paired = stores.paired_sample(row, with_segments)
    if recipe.shuffle_pairs:
        paired = replace(paired, pair_point=rng.permutation(paired.pair_point))
    later_rng = copy.deepcopy(rng) if recipe.augment.same_turn else rng
    augmented = augment_pretrain(paired, recipe.augment, rng)
    later = None
    successor = int(stores.index.successor[row])
    if "successor" in recipe.losses.reads and successor >= 0:
        points = stores.points(successor)
        segment = stores.segment_ids(row, 1, len(points))
        later = make_cloud(augment_cloud(points, later_rng), segment, recipe.voxels)
    fallbacks = augmented.num_cuboids_refused + augmented.num_whole_images
    return make_sample(row, augmented.sample, later, recipe.voxels, fallbacks)


def epoch_batches(
    paths: StorePaths, recipe: Recipe, rows: np.ndarray, epoch: int, num_workers: int
) -> Iterator[Batch]:
    """Yield the batches of one epoch of one data set; see `mixed_batches`."""
    return mixed_batches((Part(paths, rows),), recipe, epoch, num_workers)


def mixed_batches(
    parts: tuple[Part, ...], recipe: Recipe, epoch: int, num_workers: int
) -> Iterator[Batch]:
    """Yield the batches of one epoch; the last may be smaller, none is dropped.

    Raises:
        UserError: a store lacks a frame.
    """
    rows = [part.rows for part in parts]
    order = mixed_order(rows, recipe.dataset_weights, recipe.seed, epoch)
    keys = [(epoch, position, *which) for position, which in enumerate(order)]
    size = recipe.batch_size
    if num_workers:  # once per process; 5 s of imports then cost nothing in later epochs
        multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    loader = DataLoader(
        PairDataset(tuple(part.paths for part in parts), recipe),
        batch_sampler=[keys[start : start + size] for start in range(0, len(keys), size)],
        collate_fn=_collate,
        num_workers=num_workers,
        multiprocessing_context="forkserver" if num_workers else None,
        worker_init_fn=_one_thread if num_workers else None,
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def num_batches(num_rows: int, batch_size: int) -> int:
    """Return the batches of an epoch."""
    return -(-num_rows // batch_size)


def _collate(samples: list[Sample | UserError]) -> Batch | UserError:
    errors = [sample for sample in samples if isinstance(sample, UserError)]
    return errors[0] if errors else collate(samples)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)

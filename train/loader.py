"""Stores in, batches out, in an order that only (seed, epoch) decides.

A sample's randomness is keyed by (seed, epoch, position in the epoch), never by the worker, and a
batch by its step, so any number of workers gives the same batches and a run goes on from any step.
Workers are forked by a fork server that never opened a store (zarr's threads do not survive a fork)
and open their own. One loader serves the whole run: it reads ahead over the ends of epochs.
"""

import copy
import ctypes
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import UserError
from train.augment import augment_cloud, augment_pretrain
from train.batch import Batch, Sample, collate, make_cloud, make_sample
from train.mixture import Part, mixed_order
from train.parallel import ALONE, Team
from train.recipes import Recipe
from train.stores import StorePaths, Stores

Key = tuple[int, int, int, int]  # epoch, position, part, row
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def pretrain_stages(recipe: Recipe) -> tuple[str, ...]:
    """Return the stages whose stores a recipe reads."""
    read = [name for name in ("superpixels", "segments") if name in recipe.losses.reads]
    return ("frames", "projections", *read)


class PairDataset(Dataset):
    """Samples by (epoch, position, part, row)."""

    def __init__(self, places: tuple[StorePaths, ...], recipe: Recipe) -> None:
        self.places, self.recipe = places, recipe
        self._stores: tuple[Stores, ...] = ()

    def __getitem__(self, key: Key) -> Sample | UserError:
        """Return one augmented sample; an error as a value, so that its one line stays one."""
        if not self._stores:
            self._stores = tuple(Stores(paths) for paths in self.places)
        epoch, position, part, row = key
        try:
            sample = load_sample(self._stores[part], self.recipe, epoch, position, row)
        except UserError as error:
            return error
        return replace(sample, part=part)


def load_sample(stores: Stores, recipe: Recipe, epoch: int, position: int, row: int) -> Sample:
    """Read, pair and augment one frame that has images and, where a loss needs it, its successor.

    Raises:
        UserError: a store lacks the frame.
    """
    rng = np.random.default_rng((recipe.seed, epoch, position))
    paired = stores.paired_sample(row, pretrain_stages(recipe))
    if recipe.shuffle_pairs:
        paired = replace(paired, pair_point=rng.permutation(paired.pair_point))
    later_rng = copy.deepcopy(rng) if recipe.augment.same_turn else rng
    augmented = augment_pretrain(paired, recipe.augment, rng)
    later = None
    successor = stores.successor(row) if "successor" in recipe.losses.reads else -1
    if successor >= 0:
        points = stores.points(successor)
        segment = stores.segment_ids(row, 1, len(points))
        later = make_cloud(augment_cloud(points, later_rng), segment, recipe.voxels)
    fallbacks = augmented.num_cuboids_refused + augmented.num_whole_images
    return make_sample(row, augmented.sample, later, recipe.voxels, fallbacks)


def epoch_batches(
    paths: StorePaths, recipe: Recipe, rows: np.ndarray, epoch: int, num_workers: int
) -> Iterator[Batch]:
    """Yield the batches of one epoch of one data set; see `run_batches`."""
    parts = (Part(paths, rows),)
    return _load(batch_keys(parts, recipe, epoch, ALONE), parts, recipe, num_workers)


def run_batches(
    parts: tuple[Part, ...],
    recipe: Recipe,
    first_step: int,
    num_workers: int,
    team: Team = ALONE,
    pin: bool = False,
) -> Iterator[Batch]:
    """Yield this process's batches of a run, from a step on to the end.

    Args:
        parts: data sets.
        recipe: the run.
        first_step: batches that the run has consumed already.
        num_workers: processes that read; 0 reads in this one.
        team: who else trains.
        pin: put batches where a GPU can copy them from.

    Raises:
        UserError: a store lacks a frame.
    """
    total = num_batches(sum(len(part.rows) for part in parts), recipe.batch_size, team.size)
    first_epoch, skipped = divmod(first_step, total)
    epochs = (batch_keys(parts, recipe, n, team) for n in range(first_epoch, recipe.epochs))
    keys = itertools.islice(itertools.chain.from_iterable(epochs), skipped, None)
    return _load(keys, parts, recipe, num_workers, pin)


def batch_keys(
    parts: tuple[Part, ...], recipe: Recipe, epoch: int, team: Team
) -> Iterator[list[Key]]:
    """Yield the keys of this process's samples, batch by batch.

    All processes walk the same order; each takes its own run of consecutive samples of a batch, so
    none is seen twice. The last batch may be smaller, and is split alike; only where it has fewer
    samples than there are processes it is dropped, see `num_batches`.
    """
    rows = [part.rows for part in parts]
    order = mixed_order(rows, recipe.dataset_weights, recipe.seed, epoch)
    size = recipe.batch_size
    for number in range(num_batches(len(order), size, team.size)):
        start = number * size
        own = team.share(len(order[start : start + size]))
        places = range(start + own.start, start + own.stop)
        yield [(epoch, position, *order[position]) for position in places]


def num_batches(num_rows: int, batch_size: int, processes: int = 1) -> int:
    """Return the batches of an epoch; a last one with less than a sample per process is dropped."""
    whole, rest = divmod(num_rows, batch_size)
    return whole + (rest >= processes)


def _load(
    keys: Iterable[list[Key]],
    parts: tuple[Part, ...],
    recipe: Recipe,
    num_workers: int,
    pin: bool = False,
) -> Iterator[Batch]:
    if num_workers:  # once per process; 5 s of imports then cost nothing later
        multiprocessing.get_context("forkserver").set_forkserver_preload(["train.fork_server"])
    loader = DataLoader(
        PairDataset(tuple(part.paths for part in parts), recipe),
        batch_sampler=keys,
        collate_fn=_collate,
        num_workers=num_workers,
        multiprocessing_context="forkserver" if num_workers else None,
        worker_init_fn=partial(_start_worker, trainer=os.getpid()) if num_workers else None,
        pin_memory=pin,
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _collate(samples: list[Sample | UserError]) -> Batch | UserError:
    errors = [sample for sample in samples if isinstance(sample, UserError)]
    return errors[0] if errors else collate(samples)


def keep_memory() -> None:
    """Have glibc keep freed arrays for the next sample instead of giving them back.

    Arrays of a sample are above its 128 KB limit, so each would be fresh pages from the kernel: a
    full-size sample took 40 ms with them, 28 without. What is kept is what one sample needs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc's own; other C libraries have none
        mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def _start_worker(worker: int, trainer: int) -> None:
    """One thread each; the trainer decides when to stop, a signal to the whole group does not."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_memory()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(trainer,), daemon=True).start()


def _end_with(trainer: int) -> None:
    """End this worker once the trainer is gone: torch's own watch sees the fork server alone."""
    while True:
        time.sleep(2)
        try:
            os.kill(trainer, 0)
        except ProcessLookupError:
            os._exit(1)

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from tests.train.small_runs import paths_of, small_recipe
from train.loader import (
    PairDataset,
    epoch_batches,
    load_sample,
    num_batches,
    pretrain_stages,
    run_batches,
)
from train.mixture import BLOCK_FRAMES, Part, epoch_order
from train.recipes import load_recipe
from train.rows import choose_pairs
from train.stores import StorePaths, Stores

ROWS = np.arange(0, 5000, 3)


def tensors(batch):
    """Every tensor of a batch, in the order of its fields."""
    own = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    return own + [value for clouds in batch.frames for value in vars(clouds).values()]


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for value, expected in zip(tensors(batch), tensors(other), strict=True):
            assert value.dtype == expected.dtype
            assert torch.equal(value, expected)


def test_an_epoch_is_a_permutation_of_the_rows():
    order = epoch_order(ROWS, seed=0, epoch=0)
    assert not np.array_equal(order, ROWS)
    np.testing.assert_array_equal(np.sort(order), ROWS)


def test_the_order_depends_on_seed_and_epoch_alone():
    first = epoch_order(ROWS, seed=0, epoch=0)
    np.testing.assert_array_equal(first, epoch_order(ROWS, seed=0, epoch=0))
    for seed, epoch in ((0, 1), (1, 0)):
        assert not np.array_equal(first, epoch_order(ROWS, seed, epoch))


def test_frames_are_shuffled_within_windows_of_blocks():
    order = epoch_order(np.arange(32 * 24), seed=3, epoch=0)
    for start in (0, 256, 512):
        assert len(np.unique(order[start : start + 256] // 32)) == 8
        assert len(np.unique(order[start : start + 8] // 32)) > 2


def test_number_of_batches():
    assert [num_batches(n, 4) for n in (1, 4, 5, 8)] == [1, 1, 2, 2]


@pytest.mark.timeout(120)
def test_workers_give_the_same_batches_as_none(stores):
    """Also after this process has read a store: zarr's threads must not reach the workers."""
    paths, recipe = paths_of(stores), small_recipe("batch_size=3")
    rows = choose_pairs(Stores(paths), "train", pretrain_stages(recipe), True)
    alone = list(epoch_batches(paths, recipe, rows, 1, 0))
    assert [batch.num_samples for batch in alone] == [3, 1]
    assert_equal(epoch_batches(paths, recipe, rows, 1, 2), alone)
    again = list(epoch_batches(paths, recipe, rows, 0, 0))
    assert not torch.equal(again[0].pair_row[:100], alone[0].pair_row[:100])


@pytest.mark.timeout(120)
def test_an_error_in_a_worker_is_one_line(tmp_path):
    paths = StorePaths(tmp_path / "nowhere", "oracle")
    with pytest.raises(UserError, match="nowhere") as error:
        list(epoch_batches(paths, small_recipe(), np.arange(2), 0, 1))
    assert "\n" not in str(error.value)


def test_what_a_recipe_reads():
    always = ("frames", "projections")
    assert pretrain_stages(small_recipe()) == (*always, "superpixels", "segments")
    assert pretrain_stages(small_recipe(name="slidr_small")) == (*always, "superpixels")
    for name in ("ppkt_small", "cosine_small"):
        assert pretrain_stages(load_recipe(name)) == always
    superpoints = ("losses.superpixel_weight=0", "losses.point_to_segment.segments=superpoints")
    recipe = small_recipe("losses.temporal_weight=0", *superpoints)
    assert pretrain_stages(recipe) == (*always, "superpixels")
    assert "images" not in recipe.losses.reads  # the teacher need not look


def test_only_the_temporal_loss_reads_the_successor(stores):
    mine = Stores(paths_of(stores))
    assert len(load_sample(mine, small_recipe(), 0, 0, 1).clouds) == 2
    assert len(load_sample(mine, small_recipe(), 0, 0, 3).clouds) == 1  # last of its scene
    single = load_sample(mine, small_recipe("losses.temporal_weight=0"), 0, 0, 1)
    assert len(single.clouds) == 1
    assert single.clouds[0].segment.any()
    assert not load_sample(mine, small_recipe(name="slidr_small"), 0, 0, 1).clouds[0].segment.any()


def test_segments_of_both_frames_have_the_same_ids(stores):
    """A cluster that does not move has its points near each other at t and t+n."""
    mine = Stores(paths_of(stores))
    now, later = load_sample(mine, small_recipe(), 0, 0, 1).clouds
    common = set(np.unique(now.segment)) & set(np.unique(later.segment)) - {0}
    assert len(common) >= 5
    successor = int(mine.index.successor[1])
    raw = mine.segment_ids(1, 1, len(mine.points(successor)))
    np.testing.assert_array_equal(later.segment, raw)  # nothing of t+n is dropped


def spread_m(sample):
    """Mean distance in m of the points of a superpixel to their mean height and range."""
    key = sample.pair_image * 100000 + sample.ids[
        sample.pair_image, sample.pair_row, sample.pair_col
    ].astype(np.int64)
    cells = sample.clouds[0].cells[sample.pair_voxel] * 0.5
    values = []
    for number in np.unique(key):
        inside = cells[key == number]
        if len(inside) > 10:
            values.append(np.linalg.norm(inside - inside.mean(0), axis=1).mean())
    return np.mean(values)


def test_shuffled_pairs_tell_nothing_of_the_place(stores):
    mine, recipe = Stores(paths_of(stores)), small_recipe("augment.cuboid=0")
    true = load_sample(mine, recipe, 0, 0, 1)
    shuffled = load_sample(mine, replace(recipe, shuffle_pairs=True), 0, 0, 1)
    anywhere = np.linalg.norm(true.clouds[0].cells * 0.5, axis=1).mean()
    assert spread_m(shuffled) > 2.5 * spread_m(true)
    assert spread_m(shuffled) > 0.6 * anywhere
    # the same points and pixels take part, only who sees whom is broken
    assert len(np.unique(shuffled.pair_voxel)) > 0.8 * len(np.unique(true.pair_voxel))


def test_a_run_goes_on_from_any_batch(stores):
    """Across the ends of epochs, the last batch of each being smaller."""
    recipe = small_recipe("batch_size=3", "epochs=2")
    parts = (Part(paths_of(stores), np.arange(4)),)
    whole = list(run_batches(parts, recipe, 0, 0))
    assert [batch.num_samples for batch in whole] == [3, 1, 3, 1]
    assert_equal(run_batches(parts, recipe, 1, 0), whole[1:])
    assert_equal(run_batches(parts, recipe, 3, 0), whole[3:])


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_worker_holds_no_index_and_grows_no_more(stores):
    recipe, paths = small_recipe(), paths_of(stores)
    dataset = PairDataset((paths,), recipe)
    assert len(pickle.dumps(dataset)) < 10_000  # whatever the number of frames
    for position in range(16):
        dataset[0, position, 0, position % 3]
    before = resident_mb()
    for position in range(64):
        dataset[1, position, 0, position % 3]
    assert resident_mb() - before < 5
    assert "index" not in vars(dataset._stores[0])


def test_the_windows_are_those_of_the_stores(stores):
    assert BLOCK_FRAMES == Stores(paths_of(stores)).store("frames").header.frames_per_block

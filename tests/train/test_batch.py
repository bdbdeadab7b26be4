import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.augment import PairedSample
from train.batch import Cloud, Sample, collate, join_cells, make_cloud, make_sample
from train.voxelize import VoxelConfig

GRID = VoxelConfig("cartesian", size_m=1.0)


def cloud(num_voxels, voxel_idx, segment):
    cells = np.arange(3 * num_voxels, dtype=np.int32).reshape(num_voxels, 3)
    features = np.arange(num_voxels, dtype=np.float32)[:, None]
    return Cloud(features, cells, np.array(voxel_idx), np.array(segment, np.uint16))


def sample(clouds, num_images, pairs):
    pairs = np.array(pairs, np.int64).reshape(-1, 4)
    images = np.full((num_images, 3, 2, 4), num_images, np.uint8)
    ids = np.full((num_images, 2, 4), 300 + num_images, np.int32)
    return Sample(7, tuple(clouds), images, ids, *pairs.T, num_fallbacks=num_images)


# three voxels, four points in segments 2, none, 1, 2; at t+n two voxels, segment 3 alone
FIRST = sample(
    [cloud(3, [0, 1, 2, 2], [2, 0, 1, 2]), cloud(2, [1, 0], [3, 0])],
    2,
    [[0, 0, 0, 1], [2, 1, 1, 3]],
)
# two voxels, three points in segments 1, 1, none; no successor
SECOND = sample([cloud(2, [1, 1, 0], [1, 1, 0])], 1, [[1, 0, 1, 2]])


def test_two_samples_are_numbered_over_the_batch():
    batch = collate([FIRST, SECOND])
    now, later = batch.frames
    assert now.coordinates[:, 0].tolist() == [0, 0, 0, 1, 1]
    assert now.coordinates[3:, 1:].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert now.features.flatten().tolist() == [0, 1, 2, 0, 1]
    assert now.rows.tolist() == [0, 2, 2, 4, 4]  # the second sample's voxels begin at 3
    # the first sample owns segments 0..2 (its largest id, 3, is at t+n), the second one 3
    assert now.segment.tolist() == [1, 0, 1, 3, 3]
    assert later.coordinates[:, 0].tolist() == [0, 0]
    assert (later.rows.tolist(), later.segment.tolist()) == ([1], [2])
    assert batch.num_segments == 4
    assert batch.pair_voxel.tolist() == [0, 2, 3 + 1]
    assert batch.pair_image.tolist() == [0, 1, 2 + 0]
    assert batch.pair_row.tolist() == [0, 1, 1]
    assert batch.pair_col.tolist() == [1, 3, 2]
    assert batch.images.shape == (3, 3, 2, 4)
    assert batch.ids[:, 0, 0].tolist() == [302, 302, 301]
    assert (batch.num_samples, batch.num_fallbacks) == (2, 3)


def test_a_sample_without_successor_leaves_no_trace_at_the_later_time():
    batch = collate([SECOND, FIRST])
    now, later = batch.frames
    assert now.segment.tolist() == [0, 0, 2, 1, 2]  # the second sample's ids follow one segment
    assert later.coordinates[:, 0].tolist() == [0, 0]  # numbered among those that are there
    assert later.segment.tolist() == [3]  # id 3 of the sample whose segments begin at 1
    assert len(collate([SECOND]).frames) == 1


def test_no_segment_and_no_pair_is_a_batch_too():
    empty = sample([cloud(2, [0, 1], [0, 0])], 1, [])
    batch = collate([empty])
    assert batch.num_segments == 0
    assert len(batch.pair_voxel) == len(batch.frames[0].rows) == 0
    assert batch.pair_voxel.dtype == batch.frames[0].segment.dtype


def test_moving_a_batch_keeps_every_value():
    batch = collate([FIRST, SECOND])
    moved = batch.to("cpu")
    assert moved.frames[1].segment.tolist() == batch.frames[1].segment.tolist()
    assert moved.num_segments == batch.num_segments


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 60))
def test_a_pair_points_at_the_voxel_that_holds_its_point(seed, num_points):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-3, 3, (num_points, 4)).astype(np.float32)
    pair_point = rng.integers(0, num_points, 20)
    paired = PairedSample(
        points,
        rng.integers(0, 3, num_points).astype(np.uint16),
        (np.zeros((2, 4, 3), np.uint8),),
        (np.zeros((2, 4), np.uint16),),
        pair_point,
        *np.zeros((3, 20), np.int64),
    )
    made = make_sample(3, paired, None, GRID, 0)
    cells = made.clouds[0].cells[made.pair_voxel]
    np.testing.assert_array_equal(cells, np.floor(points[pair_point, :3]))
    assert made.images.shape == (1, 3, 2, 4)
    assert len(made.clouds) == 1


def test_a_voxel_has_the_intensity_of_its_first_point():
    points = np.array([[0.2, 0, 0, 9], [5, 0, 0, 8], [0.7, 0, 0, 7]], np.float32)
    made = make_cloud(points, np.zeros(3, np.uint16), GRID)
    assert made.features.tolist() == [[9], [8]]
    assert made.voxel_idx.tolist() == [0, 1, 0]
    features, coordinates = join_cells([made, made])
    assert coordinates.tolist() == [[0, 0, 0, 0], [0, 5, 0, 0], [1, 0, 0, 0], [1, 5, 0, 0]]
    assert features.dtype == torch.float32

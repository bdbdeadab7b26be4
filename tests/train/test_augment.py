from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.augment import (
    Config,
    PairedSample,
    augment_cloud,
    augment_pretrain,
    drop_cuboid,
    resize_eval,
)

SMALL = Config(height=56, width=104, min_pairs=40)


def city(seed, sizes=((90, 160), (90, 160)), num_points=300, pairs_per_image=120):
    """A sample that says in every pixel where it came from and in every point which one it is.

    Red is the column, green the row (both linear, so bilinear resizing keeps them), blue the image;
    the superpixel id is 1 + the pixel's number; intensity and segment are the point's number.
    """
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 20, (num_points, 4)).astype(np.float32)
    points[:, 3] = np.arange(num_points)
    images, ids = [], []
    for number, (height, width) in enumerate(sizes):
        row, col = np.mgrid[:height, :width]
        images.append(np.stack([col, row, np.full_like(row, number)], axis=-1).astype(np.uint8))
        ids.append((1 + row * width + col).astype(np.uint16))
    image = np.repeat(np.arange(len(sizes)), pairs_per_image)
    shape = np.array(sizes)[image] if len(sizes) else np.zeros((0, 2), int)
    return PairedSample(
        points=points,
        segment=np.arange(num_points, dtype=np.uint16),
        images=tuple(images),
        ids=tuple(ids),
        pair_point=rng.integers(0, num_points, len(image)),
        pair_image=image,
        pair_row=rng.integers(0, shape[:, 0]),
        pair_col=rng.integers(0, shape[:, 1]),
    )


def surface(sample):
    """Return what every pair originally looked at: {(point, image, row, col)}."""
    columns = (sample.pair_point, sample.pair_image, sample.pair_row, sample.pair_col)
    return set(zip(*(column.tolist() for column in columns), strict=True))


def assert_pairs_still_see_their_points(before, after, stretch):
    """Check every pair left against the marks that `city` wrote into pixels and points.

    Args:
        before: the sample as made.
        after: the sample augmented.
        stretch: largest number of source pixels under one output pixel.
    """
    original = surface(before)
    near = {}
    for point, image, row, col in original:
        near.setdefault((point, image), []).append((row, col))
    for point, image, row, col in surface(after):
        mark = int(after.points[point, 3])  # the point's number before anything was dropped
        assert after.segment[point] == mark
        red, green, blue = after.images[image][row, col].astype(float)
        assert blue == image
        number = int(after.ids[image][row, col]) - 1
        id_row, id_col = divmod(number, before.images[image].shape[1])
        # one output pixel (rounding the corner instead of the center) and one grey level
        tolerance = stretch + 1
        assert any(
            max(abs(r - green), abs(c - red), abs(r - id_row), abs(c - id_col)) <= tolerance
            for r, c in near[mark, image]
        ), f"pair of point {mark} sees row {green}, column {red}, was at {near[mark, image]}"


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(30, 240),
    width=st.integers(30, 250),
    num_pairs=st.integers(0, 150),
)
def test_after_any_augmentation_a_pair_still_sees_the_same_surface_point(
    seed, height, width, num_pairs
):
    before = city(seed, ((height, width), (90, 160)), pairs_per_image=num_pairs)
    after = augment_pretrain(before, SMALL, np.random.default_rng(seed)).sample
    stretch = max(height / SMALL.height, width / SMALL.width, 90 / 56, 160 / 104, 1)
    assert_pairs_still_see_their_points(before, after, stretch)
    assert all(image.shape == (56, 104, 3) for image in after.images)
    assert all(ids.shape == (56, 104) and ids.dtype == np.uint16 for ids in after.ids)


def test_validation_only_resizes():
    before = city(0)
    after = resize_eval(before, SMALL)
    assert_pairs_still_see_their_points(before, after, 160 / 104)
    assert after.points is before.points
    assert len(after.pair_point) > 0.97 * len(before.pair_point)  # the last half pixel falls out


def test_cloud_by_hand():
    class Fixed:
        def uniform(self, low, high):
            return np.pi / 2

        def random(self, count):
            return np.array([0.4, 0.6])  # flip x, keep y

    points = np.array([[1, 0, 5, 200], [0, 2, -1, 7]], np.float32)
    turned = augment_cloud(points, Fixed())
    # a quarter turn takes (1, 0) to (0, 1) and (0, 2) to (-2, 0); flipping x makes that (2, 0)
    assert np.allclose(turned, [[0, 1, 5, 200], [2, 0, -1, 7]], atol=1e-6)
    assert turned.dtype == np.float32


def test_cloud_keeps_distances_heights_and_intensities():
    points = city(1).points
    turned = augment_cloud(points, np.random.default_rng(0))
    assert np.allclose(np.hypot(*turned[:, :2].T), np.hypot(*points[:, :2].T), atol=1e-4)
    assert np.array_equal(turned[:, 2:], points[:, 2:])
    assert not np.allclose(turned[:, :2], points[:, :2])


def test_crop_and_flip_by_hand():
    # a 4x8 image enlarged to 8x16 without crop: pixel (1, 3) goes to (2, 6), flipped to (2, 9)
    before = replace(
        city(0, ((4, 8),), pairs_per_image=1), pair_row=np.array([1]), pair_col=np.array([3])
    )
    config = Config(height=8, width=16, min_pairs=0)
    plain = resize_eval(before, config)
    assert (plain.pair_row.tolist(), plain.pair_col.tolist()) == ([2], [6])
    assert plain.ids[0][2, 6] == 1 + 1 * 8 + 3
    whole = replace(config, min_area=1.0, aspect=(2.0, 2.0), cuboid=0.0)
    seen = set()
    for seed in range(20):
        after = augment_pretrain(before, whole, np.random.default_rng(seed)).sample
        assert after.ids[0][after.pair_row[0], after.pair_col[0]] == 1 + 1 * 8 + 3
        seen.add((after.pair_row[0], after.pair_col[0]))
    assert seen == {(2, 6), (2, 9)}


def test_cuboid_by_hand():
    # points at x = 0 .. 9; extent 9, r = 0.2 * 0.5, half size 0.45 about point 4: only that one
    class Fixed:
        def uniform(self, low, high):
            return (low + high) / 2 * 1.0

        def integers(self, high):
            return 4

    points = np.zeros((10, 4), np.float32)
    points[:, 0] = points[:, 3] = np.arange(10)
    points[:, 1] = points[:, 2] = np.arange(10) * 0.5
    before = PairedSample(
        points,
        np.arange(10, dtype=np.uint16),
        (np.zeros((2, 2, 3), np.uint8),),
        (np.zeros((2, 2), np.uint16),),
        *(np.array(a) for a in ([3, 4, 5, 9], [0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1])),
    )
    after = drop_cuboid(before, Config(min_pairs=3), Fixed())
    assert after.points[:, 3].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert after.segment.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert after.pair_point.tolist() == [3, 4, 8]  # points 3, 5, 9 at their new rows
    assert (after.pair_row.tolist(), after.pair_col.tolist()) == ([0, 1, 1], [0, 0, 1])
    # 4 pairs are enough and 3 are not; an image that never had 5 keeps 3 of 4, which is 75 %
    assert drop_cuboid(before, Config(min_pairs=4), Fixed()) is before
    assert drop_cuboid(before, Config(min_pairs=5), Fixed()) is not before


def test_a_refused_cuboid_is_counted_and_leaves_everything():
    before = replace(city(0), pair_point=np.zeros(240, np.int64))  # all pairs on one point
    config = replace(SMALL, min_pairs=120, cuboid=1.5)
    refused = 0
    for seed in range(40):
        result = augment_pretrain(before, config, np.random.default_rng(seed))
        refused += result.num_cuboids_refused
        assert len(result.sample.points) == 300 or not result.num_cuboids_refused
        assert result.sample.pair_point.size > 0
    assert 0 < refused < 40


def test_enough_pairs_survive_every_crop():
    before = city(0)
    for seed in range(30):
        result = augment_pretrain(before, replace(SMALL, cuboid=0.0), np.random.default_rng(seed))
        if not result.num_whole_images:
            counts = np.bincount(result.sample.pair_image, minlength=2)
            assert (counts > SMALL.min_pairs * 0.95).all()  # less the last half pixel


def test_an_image_that_no_crop_fits_is_resized_whole_and_counted():
    before = city(0, ((20, 200), (90, 160)))  # ten times as wide as high: 14/9 needs area <= 0.16
    result = augment_pretrain(before, SMALL, np.random.default_rng(0))
    assert result.num_whole_images == 1
    assert_pairs_still_see_their_points(before, result.sample, 200 / 104)


def test_images_without_pairs_and_frames_without_images_end():
    without_pairs = augment_pretrain(city(0, pairs_per_image=0), SMALL, np.random.default_rng(0))
    assert len(without_pairs.sample.pair_point) == 0 and len(without_pairs.sample.images) == 2
    without_images = augment_pretrain(city(0, ()), SMALL, np.random.default_rng(0))
    assert without_images.sample.images == ()
    assert without_images.sample.pair_row.dtype == np.int64


def test_the_same_seed_gives_the_same_sample_and_another_another():
    before = city(0)
    first, second, other = (
        augment_pretrain(before, SMALL, np.random.default_rng(seed)).sample for seed in (5, 5, 6)
    )
    assert np.array_equal(first.points, second.points)
    assert all(np.array_equal(a, b) for a, b in zip(first.images, second.images, strict=True))
    assert surface(first) == surface(second) != surface(other)


def test_the_input_is_left_alone():
    before, again = city(0), city(0)
    augment_pretrain(before, SMALL, np.random.default_rng(0))
    assert np.array_equal(before.points, again.points)
    assert np.array_equal(before.images[0], again.images[0])
    assert surface(before) == surface(again)


def test_refuses_pairs_of_unequal_columns():
    with pytest.raises(ValueError, match=r"pair arrays must have one length, got \[240, 240, 3"):
        replace(city(0), pair_row=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="got 9 of 300 and 2 of 2"):
        replace(city(0), segment=np.zeros(9, np.uint16))

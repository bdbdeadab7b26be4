"""Counts, boxes and painting without full-size masks, against full-size masks of PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.sam import measure, measure_torch
from pipeline.sam.resize import resize_of, scaled_size

IMAGE_SIZE, MASK_SIZE = 256, 64


def blobs(count, seed=0):
    """Smooth masks of many sizes, one that is nowhere and one that is everywhere."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 7, 7, generator=rng) * 8 - torch.linspace(-4, 14, count).view(
        -1, 1, 1, 1
    )
    masks = F.interpolate(coarse, (MASK_SIZE, MASK_SIZE), mode="bicubic")[:, 0]
    masks[0], masks[1] = -9.0, 9.0
    return masks


def full_size(masks, height, width):
    """What the package does: to the square, cut, to the image."""
    inner = scaled_size(height, width, IMAGE_SIZE)
    square = F.interpolate(masks[:, None], (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
    return F.interpolate(square[..., : inner[0], : inner[1]], (height, width), mode="bilinear")[
        :, 0
    ]


SIZES = [(225, 400), (400, 225), (256, 256), (37, 61), (300, 7), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_one_matrix_per_side_is_both_resizes(size):
    masks = blobs(4)
    found = measure_torch.enlarge(masks, resize_of(*size, IMAGE_SIZE, MASK_SIZE))
    assert torch.allclose(found, full_size(masks, *size), atol=2e-4)


@pytest.mark.parametrize("size", SIZES)
def test_counts_and_boxes_of_both_ways(size):
    masks, resize = blobs(40), resize_of(*size, IMAGE_SIZE, MASK_SIZE)
    fast = measure.measure(masks.numpy(), resize, 1.0)
    plain = measure_torch.measure(masks, resize, 1.0)
    full = full_size(masks, *size)
    truth = torch.stack([(full > t).sum((1, 2)) for t in (1.0, 0.0, -1.0)], dim=1).numpy()
    allowed = max(1, size[0] * size[1] // 20_000)  # pixels that rounding moves over a threshold
    for found in (fast, plain):
        assert np.abs(found.above - truth).max() <= allowed
    assert truth[:, 1].max() == size[0] * size[1] and truth[0].max() == 0
    assert np.abs(fast.boxes - plain.boxes).max() <= 1
    assert (fast.boxes[0] == 0).all()
    assert fast.boxes[1].tolist() == [0, 0, size[1] - 1, size[0] - 1]


@pytest.mark.parametrize("size", SIZES[:4])
def test_painting_both_ways(size):
    masks, resize = blobs(12), resize_of(*size, IMAGE_SIZE, MASK_SIZE)
    boxes = measure.measure(masks.numpy(), resize, 1.0).boxes
    fast, plain = np.zeros(size, np.uint16), np.zeros(size, np.uint16)
    for value, mask in enumerate(masks[1:], start=1):
        measure.paint(fast, value, mask.numpy(), resize, boxes[value])
        measure_torch.paint(plain, value, mask, resize)
    assert (fast != plain).mean() < 1e-4 and fast.max() > 5


def test_three_pixels_by_hand():
    """4 mask pixels of a square of 16 px, an image of 8 x 8: output 3 lies at mask 1.25."""
    side = resize_of(8, 8, 16, 4).columns
    assert side.matrix(4)[3].tolist() == pytest.approx([0, 0.75, 0.25, 0])
    assert side.matrix(4).sum(1) == pytest.approx(1)


def test_box_of_no_mask_is_zero():
    masks = torch.zeros(2, 5, 6, dtype=torch.bool)
    masks[1, 2:4, 3] = True
    assert measure_torch.boxes_of(masks).tolist() == [[0, 0, 0, 0], [3, 2, 3, 3]]

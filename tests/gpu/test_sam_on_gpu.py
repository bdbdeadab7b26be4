"""SAM mask generation on the GPU against the CPU: pixel agreement, not bits."""

import os
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
AGREEMENT = 0.98  # of the pixels; borders move by rounding


def picture():
    """Return a picture of three rectangles."""
    image = np.full((90, 160, 3), 60, np.uint8)
    image[10:50, 20:70] = (200, 30, 30)
    image[30:80, 90:150] = (30, 200, 60)
    image[55:85, 10:60] = (40, 60, 220)
    return image


def small_checkpoint(tmp_path: Path) -> str:
    """Return the published checkpoint where there is one, else random weights of a small SAM."""
    if found := os.environ.get("SAM_CHECKPOINT"):
        return found
    small = pytest.importorskip(
        "tests.pipeline.sam.small", reason="no SAM_CHECKPOINT and no small SAM to make one of"
    )
    return str(small.save(small.random_sam(), tmp_path / "sam.safetensors"))


def agreement(some: np.ndarray, other: np.ndarray) -> float:
    """Return the share of pixels in the superpixel that overlaps theirs most."""
    pairs, counts = np.unique(np.stack([some, other]).reshape(2, -1), axis=1, return_counts=True)
    best = {}
    for (ours, _), count in zip(pairs.T, counts, strict=True):
        best[ours] = max(best.get(ours, 0), count)
    return sum(best.values()) / some.size


def test_agreement_by_hand():
    some = np.array([[1, 1, 2, 2]])
    assert agreement(some, np.array([[5, 5, 6, 6]])) == 1
    assert agreement(some, np.array([[5, 5, 5, 6]])) == 0.75
    assert agreement(some, np.array([[5, 7, 5, 6]])) == 0.5


def test_masks_on_the_gpu_are_those_on_the_cpu(device, tmp_path):
    sam = pytest.importorskip(
        "pipeline.superpixels.sam", reason="this version of the code has no SAM source"
    )
    config = sam.Config(checkpoint=small_checkpoint(tmp_path), points_per_side=8)
    image = picture()
    results = [sam.load(config, name).segment(image, None) for name in ("cpu", str(device))]
    ids = [np.asarray(result.ids) for result in results]
    assert ids[0].shape == image.shape[:2]
    assert agreement(*ids) >= AGREEMENT and agreement(*ids[::-1]) >= AGREEMENT

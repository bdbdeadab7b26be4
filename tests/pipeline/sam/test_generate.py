"""Id maps against those of the package's own mask generator with the same weights."""

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.image import decode_image
from pipeline.sam.checkpoint import TINY_FILE
from pipeline.sam.generate import Found, Masks, paint
from pipeline.sam.nms import keep_boxes
from pipeline.sam.prompts import Crop, crops_of, grid_points
from pipeline.sam.resize import resize_of
from pipeline.sam.segmenter import cpu_prompts
from pipeline.sam.settings import Settings
from pipeline.sam.tiny_start import TINY
from pipeline.superpixels import sam
from pipeline.tensor_files import WEIGHTS
from tests.pipeline.sam.reference import plain_nms, reference_ids
from tests.pipeline.sam.small import random_sam, save

DATA = Path(os.environ.get("SELKIE_DATA") or Path(__file__).parents[4] / "shared" / "data")
AGREEMENT = 0.999  # of pixels; the rest is rounding at thresholds


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small random SAM in a file."""
    return save(random_sam(), tmp_path_factory.mktemp("sam") / "small.safetensors")


def picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 16, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def both(checkpoint, image, **settings):
    """Return our id map and the package's."""
    config = sam.Config(checkpoint=str(checkpoint), **settings)
    source = sam.load(config, "cpu")
    options = {
        "points_per_side": config.points_per_side,
        "pred_iou_thresh": config.predicted_iou,
        "stability_score_thresh": config.stability,
        "box_nms_thresh": config.box_nms,
        "crop_n_layers": config.crop_layers,
        "crop_n_points_downscale_factor": config.crop_points_divisor,
    }
    return source.segment(image, None).ids, reference_ids(source.model, image, **options)


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((90, 160), {"box_nms": 1.0}),  # every good mask is painted: order matters most
        ((131, 71), {"box_nms": 0.9, "predicted_iou": 0.5}),
        ((75, 133), {"crop_layers": 1, "crop_points_divisor": 2}),
    ],
)
def test_equals_the_package(small, size, settings):
    ours, theirs = both(small, picture(*size), points_per_side=8, **settings)
    assert (ours == theirs).mean() >= AGREEMENT
    assert theirs.max() >= 3


def test_a_threshold_of_0_lets_all_pass_as_in_the_package(small):
    config = sam.Config(checkpoint=str(small), points_per_side=6, predicted_iou=0.0, stability=0.0)
    source, image = sam.load(config, "cpu"), picture(60, 71)
    with torch.no_grad():  # every predicted IoU below 0
        source.model.mask_decoder.iou_prediction_head.layers[-1].bias -= 9
    options = {"points_per_side": 6, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    theirs = reference_ids(source.model, image, **options)
    assert (source.segment(image, None).ids == theirs).mean() >= AGREEMENT
    assert theirs.max() >= 3


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("weights", ["small", "tiny"])
@pytest.mark.parametrize("window", [(900, 1600), (451, 777), (700, 133)])
def test_equals_the_package_on_real_images(weights, window, small):
    found = sorted((DATA / "nuscenes" / "samples").glob("CAM_*/*.jpg"))
    if not found:
        pytest.skip("no recordings: set SELKIE_DATA")
    path = small if weights == "small" else WEIGHTS / TINY_FILE
    side, least, stable = (12, 0.5, 0.8) if weights == "small" else (6, 0.45, 0.7)  # some pass
    settings = {
        "points_per_side": side,
        "predicted_iou": least,
        "stability": stable,
        "box_nms": 1.0,
    }
    for image in found[:2]:
        cut = decode_image(image)[: window[0], : window[1]]
        ours, theirs = both(path, cut, **settings)
        assert (ours == theirs).mean() >= AGREEMENT
        assert theirs.max() >= 2


def test_batches_change_nothing(small):
    image = picture(90, 160)
    several = sam.load(
        sam.Config(
            checkpoint=str(small), points_per_side=6, prompts_per_batch=25, images_per_batch=2
        ),
        "cpu",
    )
    alone = sam.load(
        sam.Config(checkpoint=str(small), points_per_side=6, prompts_per_batch=1), "cpu"
    )
    wide = picture(60, 160, seed=1)
    found = several.segment_images([image, wide, image], [None] * 3)
    assert (found[0].ids == found[2].ids).all() and found[1].ids.shape == (60, 160)
    assert (found[0].ids == alone.segment(image, None).ids).mean() >= AGREEMENT
    assert (found[1].ids == alone.segment(wide, None).ids).mean() >= AGREEMENT


def test_no_good_mask_is_an_empty_map(small):
    source = sam.load(
        sam.Config(checkpoint=str(small), points_per_side=4, stability_offset=1e9), "cpu"
    )
    found = source.segment(picture(40, 60), None)
    assert found.ids.shape == (40, 60) and found.num_segments == 0


def test_large_masks_lie_below_small_ones():
    """A mask of the left half and one of a quarter inside it: ids by falling area, from 1."""
    logits = -torch.ones(2, 4, 4)
    logits[0, :2, :2] = 1.0
    logits[1, :, :2] = 1.0
    masks = Masks(logits, np.ones(2), np.array([4, 8]), np.array([[0, 0, 1, 1], [0, 0, 1, 3]]))
    crop = Crop(0, 0, 4, 4, 0)
    found = [Found(crop, resize_of(4, 4, 16, 4), masks)]
    ids = paint(found, 0.7, (4, 4))
    assert ids.tolist() == [[2, 2, 0, 0], [2, 2, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    ids = paint(found, 0.7, (4, 4), 0)  # as in Seal's files: the largest is one with no mask
    assert ids.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_more_masks_than_bytes_can_number():
    logits = torch.full((400, 4, 4), 1.0)
    area, boxes = np.full(400, 16), np.tile([0, 0, 3, 3], (400, 1))
    masks = Masks(logits, np.ones(400), area, boxes)
    ids = paint([Found(Crop(0, 0, 4, 4, 0), resize_of(4, 4, 16, 4), masks)], 0.7, (4, 4))
    assert (ids == 400).all()


def test_boxes_that_overlap_too_much_go():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 6], [20, 0, 30, 10], [5, 5, 5, 5]])
    scores = np.array([0.5, 0.9, 0.8, 0.9, 0.1])
    assert keep_boxes(boxes, scores, 0.7).tolist() == [1, 3, 4]  # 0.8 and 0.75 with the second


@pytest.mark.parametrize("threshold", [0.3, 0.7, 1.0])
def test_suppression_equals_a_plain_one(threshold):
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 60, (80, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    scores = rng.integers(0, 9, 80) / 9  # ties
    plain = plain_nms(torch.tensor(boxes).float(), torch.tensor(scores), torch.zeros(80), threshold)
    assert keep_boxes(boxes, scores, threshold).tolist() == plain.tolist()


def test_grid_and_crops_by_hand():
    settings = Settings(points_per_side=2, crop_layers=1, crop_overlap=0.5, crop_points_divisor=2)
    crops = crops_of(100, 200, settings)
    assert crops[0] == Crop(0, 0, 200, 100, 0) and len(crops) == 5
    assert crops[1] == Crop(0, 0, 125, 75, 1) and crops[2] == Crop(0, 25, 125, 100, 1)
    assert crops[4] == Crop(75, 25, 200, 100, 1)
    assert grid_points(crops[0], settings).tolist() == [[50, 25], [150, 25], [50, 75], [150, 75]]
    assert grid_points(crops[4], settings).tolist() == [[62.5, 37.5]]


@pytest.mark.parametrize(
    ("name", "value"),
    [("stability", 1.5), ("points_per_side", 0), ("crop_overlap", 1.0), ("images_per_batch", 0)],
)
def test_numbers_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
        Settings(**{name: value})


def test_the_first_id_reaches_the_map(small):
    image = picture(40, 60)
    maps = []
    for first in ("1", "0"):
        config = sam.Config(checkpoint=str(small), points_per_side=4, predicted_iou=0.5,
                            stability=0.5, first_id=first)  # fmt: skip
        maps.append(sam.load(config, "cpu").segment(image, None).ids.astype(int))
    assert maps[0].max() > 1
    assert np.array_equal(np.maximum(maps[0] - 1, 0), maps[1])


def test_smaller_decoders_take_more_prompts_at_once():
    published = replace(TINY, grid=64, dim=256)
    assert cpu_prompts(published) == 2 and cpu_prompts(TINY) == 32
    assert cpu_prompts(replace(TINY, grid=32, dim=256)) == 8

"""Automatic mask generation: everything after the image encoder, in the order of its steps.

In: the embeddings of an image and of its crops. Out: the id map. The package's generator brings all
3,072 masks of an image to full size; here a mask meets the predicted IoU first, then its stability
and box are counted without making it, and only the masks that remain are painted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.sam import measure, measure_torch
from pipeline.sam.batches import Batches
from pipeline.sam.decode import draw, rate, share
from pipeline.sam.nms import keep_boxes
from pipeline.sam.prompts import Crop, grid_points
from pipeline.sam.resize import Resize, resize_of, scaled_size
from pipeline.sam.settings import Settings

MAX_SEGMENTS = np.iinfo(np.uint16).max
EDGE_PX = 20.0  # a mask whose box ends this near a crop's border is cut off by it


@dataclass(frozen=True)
class Masks:
    """Masks of one crop that passed; K of them."""

    logits: Tensor  # [K, m, m] float32, as the decoder made them
    iou: np.ndarray  # [K] float32 predicted
    area: np.ndarray  # [K] px
    boxes: np.ndarray  # [K, 4] int32, left, top, right, bottom in the crop's pixels


@dataclass(frozen=True)
class Found:
    """The masks of one crop, and how they get into the image."""

    crop: Crop
    resize: Resize
    masks: Masks


def segment(
    model: nn.Module,
    embeddings: Sequence[Tensor],
    crops: Sequence[Crop],
    settings: Settings,
    batches: Batches,
) -> np.ndarray:
    """Return the id map [H, W] uint16 of an image: 0 = no mask, `first_id` = the largest mask.

    Args:
        model: the package's Sam.
        embeddings: [D, grid, grid] each, of the crops.
        crops: the first is the whole image.
        settings: thresholds.
        batches: how many prompts at a time.

    Raises:
        UserError: more masks than 16 bits can number.
    """
    found = [
        find_masks(model, embedding, crop, crops[0], settings, batches)
        for embedding, crop in zip(embeddings, crops, strict=True)
    ]
    return paint(found, settings.crop_nms, crops[0].size, int(settings.first_id))


def find_masks(
    model: nn.Module,
    embedding: Tensor,
    crop: Crop,
    image: Crop,
    settings: Settings,
    batches: Batches,
) -> Found:
    """Return the masks of one crop after its own non-maximum suppression, best first."""
    height, width = crop.size
    image_size = model.image_encoder.img_size
    resize = resize_of(height, width, image_size, 4 * embedding.shape[-1])
    points = grid_points(crop, settings)
    inner_height, inner_width = scaled_size(height, width, image_size)
    points = points * np.array([inner_width / width, inner_height / height])
    points = torch.from_numpy(points).to(embedding.device)
    shared = share(model, embedding)
    parts = batches.run(
        lambda chunk: [_good_masks(model, shared, chunk, crop, image, resize, settings)],
        points,
    )
    masks = Masks(
        torch.cat([part.logits for part in parts]),
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("iou", "area", "boxes")
        ),
    )
    return Found(crop, resize, _only(masks, keep_boxes(masks.boxes, masks.iou, settings.box_nms)))


def _good_masks(
    model: nn.Module,
    shared: object,
    points: Tensor,
    crop: Crop,
    image: Crop,
    resize: Resize,
    settings: Settings,
) -> Masks:
    """Return the masks of some prompts that are good, stable and not cut off by the crop."""
    rated = rate(model, shared, points)
    least = settings.predicted_iou or -math.inf  # [B, 3]; 0 lets all pass, as in the package
    is_good = rated.iou > least
    worth = is_good.any(1).nonzero()[:, 0]
    logits = draw(model, rated, worth)[is_good[worth]]
    iou = rated.iou[is_good].cpu().numpy()
    if logits.is_cuda:
        found = measure_torch.measure(logits, resize, settings.stability_offset)
    else:
        found = measure.measure(logits.numpy(), resize, settings.stability_offset)
    high, area, low = found.above.T
    with np.errstate(invalid="ignore"):  # a mask that is nowhere above -offset: 0 / 0
        stability = high.astype(np.float32) / low.astype(np.float32)
    is_kept = (stability >= np.float32(settings.stability)) | (settings.stability == 0)
    is_kept &= ~_is_cut_off(found.boxes, crop, image)
    chosen = torch.from_numpy(is_kept).to(logits.device)
    return Masks(logits[chosen], iou[is_kept], area[is_kept], found.boxes[is_kept])


def _is_cut_off(boxes: np.ndarray, crop: Crop, image: Crop) -> np.ndarray:
    """Return which boxes [K, 4] end near a border of the crop that is none of the image's."""
    boxes = boxes + np.array([crop.left, crop.top, crop.left, crop.top])
    is_near = [
        np.abs(boxes - np.array([part.left, part.top, part.right, part.bottom])) <= EDGE_PX
        for part in (crop, image)
    ]
    return (is_near[0] & ~is_near[1]).any(1)


def _only(masks: Masks, chosen: np.ndarray) -> Masks:
    """Return some of the masks, in that order."""
    at = torch.from_numpy(chosen).to(masks.logits.device)
    return Masks(masks.logits[at], masks.iou[chosen], masks.area[chosen], masks.boxes[chosen])


def paint(
    found: Sequence[Found], crop_nms: float, size: tuple[int, int], first_id: int = 1
) -> np.ndarray:
    """Return the id map of all crops' masks: large ones first, small ones over them.

    Masks that several crops found stay once, from the smallest crop.
    """
    owner = np.concatenate([np.full(len(each.masks.area), n) for n, each in enumerate(found)])
    number = np.concatenate([np.arange(len(each.masks.area)) for each in found])
    area = np.concatenate([each.masks.area for each in found])
    if len(found) > 1:
        boxes = [each.masks.boxes + np.array([each.crop.left, each.crop.top] * 2) for each in found]
        of_crop = np.array([1 / np.float32(np.prod(each.crop.size)) for each in found])
        kept = keep_boxes(np.concatenate(boxes), of_crop[owner], crop_nms)
        owner, number, area = owner[kept], number[kept], area[kept]
    if len(area) > MAX_SEGMENTS:
        raise ValueError(f"sam: masks must be at most {MAX_SEGMENTS}, got {len(area)}")
    ids = np.zeros(size, np.uint16)
    for value, position in enumerate(np.argsort(-area, kind="stable"), start=first_id):
        each, k = found[owner[position]], number[position]
        crop, logits = each.crop, each.masks.logits[k]
        part = ids[crop.top : crop.bottom, crop.left : crop.right]
        if logits.is_cuda:
            measure_torch.paint(part, value, logits, each.resize)
        else:
            measure.paint(part, value, logits.numpy(), each.resize, each.masks.boxes[k])
    return ids

"""The package's own mask generator, with plain stand-ins for what it takes from torchvision."""

from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
from PIL import Image

from pipeline.superpixels import sam  # noqa: F401  before the package itself: it needs the stand-ins


def plain_nms(boxes, scores, groups, iou_threshold):
    """Return the positions that stay, best first, one box after the other."""
    assert not groups.any()
    kept = []
    for i in torch.argsort(scores, stable=True, descending=True).tolist():
        overlaps = False
        for j in kept:
            sides = torch.minimum(boxes[i, 2:], boxes[j, 2:]) - torch.maximum(
                boxes[i, :2], boxes[j, :2]
            )
            both = sides.clamp(min=0).prod()
            either = (boxes[i, 2:] - boxes[i, :2]).prod() + (boxes[j, 2:] - boxes[j, :2]).prod()
            overlaps |= bool(both / (either - both) > iou_threshold)
        if not overlaps:
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long)


def plain_area(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def plain_resize(image, size):
    return image.resize(size[::-1], Image.Resampling.BILINEAR)


@contextmanager
def torchvision_stand_ins():
    """What the package's generator and its image transform call, while a test calls them."""
    generator = "segment_anything.automatic_mask_generator"
    transforms = "segment_anything.utils.transforms"
    with (
        mock.patch(f"{generator}.batched_nms", plain_nms),
        mock.patch(f"{generator}.box_area", plain_area),
        mock.patch(f"{transforms}.resize", plain_resize),
        mock.patch(f"{transforms}.to_pil_image", Image.fromarray),
    ):
        yield


def reference_ids(model, image_rgb, **options) -> np.ndarray:
    """Return the id map of the package's masks: by falling area, ids from 1, later ones on top."""
    from segment_anything import SamAutomaticMaskGenerator  # after superpixels/sam.py imported it

    with torchvision_stand_ins():
        masks = SamAutomaticMaskGenerator(model, **options).generate(image_rgb)
    ids = np.zeros(image_rgb.shape[:2], np.uint16)
    ordered = sorted(masks, key=lambda mask: mask["area"], reverse=True)
    for rank, mask in enumerate(ordered, start=1):
        ids[mask["segmentation"]] = rank
    return ids

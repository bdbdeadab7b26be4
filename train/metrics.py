"""Confusion matrix and IoU, in the two conventions for classes that do not occur.

In: train ids of points and predictions. Out: per-class IoU and mIoU in percent. The network has K
outputs and none for the ignored label, so nothing has to be suppressed before the argmax.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

IGNORED = 255
Convention = Literal["present", "slidr"]


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says, in percent."""

    miou: float  # NaN where no class occurs ("present")
    per_class_iou: tuple[float, ...]  # [K]; a class with empty union is NaN, "slidr": 100
    num_absent: int  # classes with empty union: neither labeled nor predicted
    convention: Convention


def confusion(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Return the confusion matrix of some points; matrices of several scans add up.

    Args:
        labels: [N] integer train ids in 0 .. K - 1, 255 = ignored: the point does not count.
        predictions: [N] integer in 0 .. K - 1.
        num_classes: K.

    Returns:
        [K, K] int64, rows = labels, columns = predictions, on the device of the labels.

    Raises:
        ValueError: lengths differ, or a number is no class.

    Source: method.md 6.1, steps 2 and 3 (SLidR); counted over points, not voxels.
    """
    if labels.shape != predictions.shape:
        raise ValueError(
            f"confusion: predictions must be {list(labels.shape)} like labels, "
            f"got {list(predictions.shape)}; map voxels back to points first"
        )
    counted = labels != IGNORED
    rows, cols = labels[counted].long(), predictions[counted].long()
    for name, values in (("labels", rows), ("predictions", cols)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise ValueError(
                f"confusion: {name} must be in 0 .. {num_classes - 1}, got "
                f"{int(values.min())} .. {int(values.max())}; map raw labels to train ids first"
            )
    flat = torch.bincount(rows * num_classes + cols, minlength=num_classes**2)
    return flat.view(num_classes, num_classes)


def scores(matrix: Tensor, convention: Convention = "present") -> Scores:
    """Return IoU per class and their mean.

    Args:
        matrix: [K, K] integer confusion matrix, rows = labels.
        convention: "present" leaves classes with an empty union out of the mean; "slidr" counts
            them as 100, as SLidR's code does, for comparison with published numbers only.

    Raises:
        ValueError: another convention.

    Source: method.md 6.1, step 4: IoU_c = H_cc / (row_c + col_c - H_cc).
    """
    if convention not in get_args(Convention):
        raise ValueError(
            f"scores: convention must be one of {', '.join(get_args(Convention))}, "
            f"got '{convention}'; use 'present'"
        )
    matrix = matrix.double()
    hits = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - hits
    absent = union == 0
    iou = 100 * hits / union  # 0 / 0 = NaN where absent
    if convention == "slidr":
        iou = torch.where(absent, 100.0, iou)
    return Scores(float(iou.nanmean()), tuple(iou.tolist()), int(absent.sum()), convention)

"""Cross entropy plus Lovasz-softmax: the downstream loss, over the labeled voxels of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = 255


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return cross entropy + Lovasz-softmax, weights 1 and 1.

    Args:
        logits: [V, K] float.
        labels: [V] int64 train ids, 255 = ignored.

    Returns:
        Scalar float32; 0 with the graph intact where nothing is labeled.

    Source: method.md 5.2 (SLidR downstream/criterion.py).
    """
    known = labels != IGNORED
    logits, labels = logits[known].float(), labels[known]
    if not len(labels):
        return logits.sum()
    return F.cross_entropy(logits, labels) + lovasz_softmax(logits.softmax(1), labels)


def lovasz_softmax(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over the classes present of the Lovasz extension of the Jaccard loss.

    Args:
        probabilities: [V, K] float in 0..1, rows sum to 1.
        labels: [V] int64 in 0..K-1.

    Source: Berman, Triki, Blaschko, CVPR 2018, equations 8 and 11; flat over voxels.
    """
    losses = []
    for label in torch.unique(labels).tolist():
        is_class = (labels == label).to(probabilities.dtype)  # [V]
        errors = (is_class - probabilities[:, label]).abs()
        errors_sorted, order = errors.sort(descending=True, stable=True)
        losses.append(errors_sorted @ _jaccard_steps(is_class[order]))
    return torch.stack(losses).mean()


def _jaccard_steps(is_class_sorted: Tensor) -> Tensor:
    """Return how much each further mistake, in order of error, adds to 1 - IoU; [V]."""
    total = is_class_sorted.sum()
    intersection = total - is_class_sorted.cumsum(0)
    union = total + (1 - is_class_sorted).cumsum(0)
    loss = 1 - intersection / union
    return torch.diff(loss, prepend=loss.new_zeros(1))

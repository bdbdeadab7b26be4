"""Losses of the tiny SAM's training: of masks, and of the image embedding itself."""

import torch
import torch.nn.functional as F
from torch import Tensor


def likeness(embedding: Tensor, points: Tensor, targets: Tensor, image_size: int) -> Tensor:
    """Return how badly tokens [D, g, g] like the one under a prompt say which share its segment.

    Ours: it teaches the encoder within a few hundred steps what the masks' loss, at the other end
    of the decoder, does not. Cosines are spread around 0.5 to be read as log odds.
    """
    tokens = F.normalize(embedding, dim=0)
    place = (points * (tokens.shape[-1] / image_size)).long()
    asked = tokens[:, place[:, 1], place[:, 0]]  # [D, B]
    odds = 10 * (torch.einsum("db,dhw->bhw", asked, tokens) - 0.5)
    target = F.pad(targets, (0, 0, 0, -targets.shape[1] % 4))
    target = F.avg_pool2d(target, 4)
    return balanced(odds[:, : target.shape[1], : target.shape[2]], target).mean()


def balanced(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross entropy [B, 3] of masks [B, 3, h, w], inside and outside weighing the same.

    Not the published focal loss: with that a network of few steps learns to answer nothing at all.
    """
    error = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    inside = (error * target).sum((-2, -1)) / target.sum((-2, -1)).clamp(min=1)
    outside = 1 - target
    return (inside + (error * outside).sum((-2, -1)) / outside.sum((-2, -1)).clamp(min=1)) / 2


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """Return the dice loss [B, 3] of masks [B, 3, h, w]."""
    share = logits.sigmoid()
    both, either = (share * target).sum((-2, -1)), (share + target).sum((-2, -1))
    return 1 - (2 * both + 1) / (either + 1)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of masks [..., h, w]."""
    both = (first & second).sum((-2, -1)).float()
    return both / (first | second).sum((-2, -1)).clamp(min=1)

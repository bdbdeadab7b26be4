"""From scored masks to one id per pixel: the panoptic rule that the whole family shares.

In: class logits and mask logits of the queries. Out: ids 1..S, 0 = none, and a class per id. Masks
come one by one at full size: at 1600 x 900 a hundred of them together would take 600 MB.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.xdecoder.class_names import CLASSES, NUM_THINGS

NO_OBJECT = len(CLASSES)  # the class of the background row
NO_CATEGORY = -1


@dataclass(frozen=True)
class Kept:
    """The queries that stand for something, in query order."""

    query_idx: Tensor  # [n] int64
    scores: Tensor  # [n] float
    labels: Tensor  # [n] int64, class ids


@dataclass(frozen=True)
class Panoptic:
    """Ids of one image and what they are."""

    ids: np.ndarray  # [H, W] uint16, 1..S without gaps, 0 = none
    category: np.ndarray  # [S + 1] int16 class by id, slot 0 = -1


def keep_queries(logits: Tensor, object_threshold: float, temperature: float | None) -> Kept:
    """Return the queries whose best class is an object and scores above the threshold.

    Args:
        logits: [Q, K] float, K = 133, or 134 where the last row stands for no object.
        object_threshold: least score.
        temperature: None: the score is the softmax. Else (OpenSeeD) the sigmoid decides who is
            kept, and the score is the softmax over sigmoids divided by the temperature.

    Source: fact sheet xdecoder.md 8 and 11.
    """
    if temperature is None:
        scores, labels = logits.softmax(dim=-1).max(dim=-1)
        kept = scores > object_threshold
    else:
        chances = logits.sigmoid()
        kept = chances.max(dim=-1).values > object_threshold
        scores, labels = (chances / temperature).softmax(dim=-1).max(dim=-1)
    kept = kept & (labels != NO_OBJECT)
    query_idx = kept.nonzero()[:, 0]
    return Kept(query_idx, scores[query_idx], labels[query_idx])


def merge(
    kept: Kept, masks: Iterable[Tensor], size: tuple[int, int], overlap_threshold: float
) -> Panoptic:
    """Return the panoptic map: each pixel goes to the query with the largest score x probability.

    A query whose pixels are less than `overlap_threshold` of its own mask (probability at least one
    half) is dropped, and its pixels stay 0. Stuff of one class is one segment per image.

    Args:
        kept: n queries.
        masks: n mask logits [H, W], in the order of `kept`.
        size: H, W.
        overlap_threshold: 0 .. 1.

    Source: fact sheet xdecoder.md 8.
    """
    device = kept.scores.device
    best = torch.full(size, -1.0, device=device)
    owner = torch.full(size, -1, dtype=torch.int16, device=device)
    inside = []
    for number, (score, mask) in enumerate(zip(kept.scores, masks, strict=True)):
        chance = mask.sigmoid()
        inside.append(chance >= 0.5)
        claim = score * chance
        wins = claim > best  # strictly: the first of equals keeps the pixel
        best = torch.where(wins, claim, best)
        owner[wins] = number

    ids = torch.zeros(size, dtype=torch.int32, device=device)
    category = [NO_CATEGORY]
    id_of_stuff: dict[int, int] = {}
    for number, (label, mask) in enumerate(zip(kept.labels.tolist(), inside, strict=True)):
        owned = owner == number
        won = owned & mask
        num_owned, num_inside, num_won = (int(pixels.sum()) for pixels in (owned, mask, won))
        if not num_won or num_owned / num_inside < overlap_threshold:
            continue
        segment = id_of_stuff.get(label, len(category))
        if segment == len(category):
            category.append(label)
            if label >= NUM_THINGS:
                id_of_stuff[label] = segment
        ids[won] = segment
    return Panoptic(ids.cpu().numpy().astype(np.uint16), np.array(category, np.int16))

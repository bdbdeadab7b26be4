"""L_tmp: points at t against segment means at t+n, and the other way round.

In: normalized voxel features of both frames and the segment of each clustered point, the segments
numbered alike in both. Out: the sum of both directions. The target mean carries no gradient.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from train.contrast import Term, info_nce_to, nothing
from train.pooling import segment_mean


@dataclass(frozen=True)
class Config:
    """Settings of L_tmp; all are our choices, method.md 2.3."""

    temperature: float = 0.07  # of the softmax
    max_points: int = 300  # anchors drawn per segment and direction; TARL


def loss(
    features_t: Tensor,
    rows_t: Tensor,
    segment_t: Tensor,
    features_s: Tensor,
    rows_s: Tensor,
    segment_s: Tensor,
    num_segments: int,
    generator: torch.Generator,
    config: Config,
) -> Term:
    """Return L_tmp of a batch; s stands for t+n.

    Args:
        features_t: [V_t, D] float, L2-normalized, of all voxels of the batch at t.
        rows_t: [A_t] int64, voxel of each clustered point (no ground, no noise).
        segment_t: [A_t] int64 in 0 .. num_segments - 1, its segment, numbered over the batch.
        features_s: [V_s, D] float, the same at t+n.
        rows_s: [A_s] int64.
        segment_s: [A_s] int64, same numbers as segment_t for the same cluster.
        num_segments: S; a segment without points in either frame takes no part.
        generator: draws the anchors; the only randomness.
        config: temperature and the number of anchors.

    Returns:
        The term; `num_contrasted` counts segments present in both frames.

    Raises:
        ValueError: rows and segment of a frame differ in length.

    Source: method.md 2.3, recalled form, after TARL's objective without its momentum encoder and
    predictors. Ours to choose: points as anchors, all segments of the batch as candidates, means
    over all points, re-normalized, without gradient; anchors averaged per segment, then over
    segments (1 / M_k).
    """
    frames = []
    for name, rows, segment in (("t", rows_t, segment_t), ("t+n", rows_s, segment_s)):
        if rows.shape != segment.shape:
            raise ValueError(
                f"temporal_nce: segment at {name} must be {list(rows.shape)} like rows, "
                f"got {list(segment.shape)}; give one segment per clustered point"
            )
        frames.append(torch.bincount(segment, minlength=num_segments))
    present = (frames[0] > 0) & (frames[1] > 0)
    num_present = int(present.sum())
    if num_present < 1:
        return nothing(features_t, features_s)
    points_t, number_t = _select(features_t, rows_t, segment_t, present)
    points_s, number_s = _select(features_s, rows_s, segment_s, present)
    value = _one_way(points_t, number_t, points_s, number_s, num_present, generator, config)
    value = value + _one_way(points_s, number_s, points_t, number_t, num_present, generator, config)
    return Term(value, num_present)


def sample_per_segment(segment: Tensor, max_points: int, generator: torch.Generator) -> Tensor:
    """Return positions of at most `max_points` random points of every segment, ascending.

    Args:
        segment: [A] int64.
        max_points: >= 1.
        generator: its device may differ from the segment's.

    Returns:
        [A'] int64 in 0 .. A - 1; all points of a segment that has no more than max_points.
    """
    drawn = torch.rand(len(segment), generator=generator, device=generator.device)
    shuffled = drawn.to(segment.device).argsort(stable=True)
    order = shuffled[segment[shuffled].argsort(stable=True)]  # by segment, random within
    sorted_segment = segment[order]
    rank = torch.arange(len(order), device=segment.device) - torch.searchsorted(
        sorted_segment, sorted_segment
    )
    return order[rank < max_points].sort().values


def _select(
    features: Tensor, rows: Tensor, segment: Tensor, present: Tensor
) -> tuple[Tensor, Tensor]:
    """Return features and new segment numbers of the points whose segment both frames have."""
    keep = present[segment]
    points = features.index_select(0, rows[keep])  # [rows] adds its gradients in random order
    return points, (present.cumsum(0) - 1)[segment[keep]]


def _one_way(
    anchors: Tensor,
    anchor_segment: Tensor,
    targets: Tensor,
    target_segment: Tensor,
    num_segments: int,
    generator: torch.Generator,
    config: Config,
) -> Tensor:
    means, _ = segment_mean(targets.detach(), target_segment, num_segments)
    means = F.normalize(means, dim=1)
    drawn = sample_per_segment(anchor_segment, config.max_points, generator)
    segment = anchor_segment[drawn]
    weight = 1 / torch.bincount(segment, minlength=num_segments)[segment]
    return info_nce_to(anchors.index_select(0, drawn), means, segment, config.temperature, weight)

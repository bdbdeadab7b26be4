"""L_tmp: points at t against segment means at t+n, and the other way round.

In: normalized voxel features of both frames and the segment of each clustered point, the segments
numbered alike in both. Out: the sum of both directions. The target mean carries no gradient, unless
a run asks for it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import check
from train.contrast import Term, check_temperature, info_nce_to, nothing
from train.encoded import Encoded
from train.pooling import segment_mean


@dataclass(frozen=True)
class Config:
    """Settings of L_tmp; all are our choices, method.md 2.3."""

    temperature: float = 0.07  # of the softmax
    max_points: int = 300  # anchors drawn per segment and direction; TARL
    anchor: Literal["points", "means"] = "points"  # means: a segment's mean, as SuperFlow does
    candidates: Literal["batch", "sample"] = "batch"  # segments in the denominator
    target_gradient: bool = False  # the target mean learns too
    unit_means: bool = True  # means are normalized again

    def __post_init__(self) -> None:
        """Refuse a loss without anchors or temperature."""
        check_temperature("temporal_nce", self.temperature)
        check(
            self.max_points >= 1,
            f"temporal_nce.max_points: must be at least 1, got {self.max_points}",
        )


def reads(config: Config) -> frozenset[str]:
    """Return what this loss looks at beside the points at t."""
    return frozenset({"successor", "segments"})


def of_batch(encoded: Encoded, config: Config) -> Term:
    """Return the loss of a batch; nothing where no sample has a successor."""
    batch = encoded.batch
    if len(batch.frames) < 2:
        return nothing(encoded.points[0])
    now, later = batch.frames
    return loss(
        encoded.points[0],
        now.rows,
        now.segment,
        encoded.points[1],
        later.rows,
        later.segment,
        batch.segment_sample,
        encoded.generator,
        config,
    )


def loss(
    features_t: Tensor,
    rows_t: Tensor,
    segment_t: Tensor,
    features_s: Tensor,
    rows_s: Tensor,
    segment_s: Tensor,
    segment_sample: Tensor,
    generator: torch.Generator,
    config: Config,
) -> Term:
    """Return L_tmp of a batch; s stands for t+n.

    Args:
        features_t: [V_t, D] float, L2-normalized, of all voxels of the batch at t.
        rows_t: [A_t] int64, voxel of each clustered point (no ground, no noise).
        segment_t: [A_t] int64 in 0 .. S - 1, its segment, numbered over the batch.
        features_s: [V_s, D] float, the same at t+n.
        rows_s: [A_s] int64.
        segment_s: [A_s] int64, same numbers as segment_t for the same cluster.
        segment_sample: [S] int64, the sample of the batch that owns each segment; one without
            points in either frame takes no part.
        generator: draws the anchors; the only randomness.
        config: temperature, anchors, candidates, targets.

    Returns:
        The term; `num_contrasted` counts segments present in both frames.

    Raises:
        ValueError: rows and segment of a frame differ in length.

    Source: method.md 2.3, recalled form, after TARL's objective without its momentum encoder and
    predictors. Ours to choose, each a field of the config: points as anchors, all segments of the
    batch as candidates, means over all points, re-normalized, without gradient. Anchors are
    averaged per segment, then over segments (1 / M_k).
    """
    num_segments, frames = len(segment_sample), []
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
    sample = segment_sample[present]
    side_t = _select(features_t, rows_t, segment_t, present)
    side_s = _select(features_s, rows_s, segment_s, present)
    value = _one_way(side_t, side_s, sample, generator, config)
    value = value + _one_way(side_s, side_t, sample, generator, config)
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
    anchors: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    sample: Tensor,
    generator: torch.Generator,
    config: Config,
) -> Tensor:
    """Return one direction; anchors and targets are features [A, D] with their segments [A]."""
    means = _means(*targets, len(sample), config)
    candidates = means if config.target_gradient else means.detach()
    if config.anchor == "means":
        rows, weight = _means(*anchors, len(sample), config), None
        segment = torch.arange(len(sample), device=sample.device)
    else:
        points, of_point = anchors
        drawn = sample_per_segment(of_point, config.max_points, generator)
        rows, segment = points.index_select(0, drawn), of_point[drawn]
        weight = 1 / torch.bincount(segment, minlength=len(sample))[segment]
    same = sample[segment][:, None] == sample if config.candidates == "sample" else None
    return info_nce_to(rows, candidates, segment, config.temperature, weight, same)


def _means(points: Tensor, segment: Tensor, num_segments: int, config: Config) -> Tensor:
    means, _ = segment_mean(points, segment, num_segments)
    return F.normalize(means, dim=1) if config.unit_means else means

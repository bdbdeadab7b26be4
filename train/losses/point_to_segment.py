"""L_p2s: points against the mean of their own segment, within one frame.

In: normalized voxel features and the geometric segment of each clustered point. Out: InfoNCE of
each point against all segment means of the batch, which pulls a segment's points together.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import check
from train.contrast import Term, check_temperature, info_nce_to, nothing
from train.encoded import Encoded
from train.pooling import compact_ids, segment_mean


@dataclass(frozen=True)
class Config:
    """Settings of L_p2s; all are our choices, method.md 2.4."""

    temperature: float = 0.07  # of the softmax
    pooling: Literal["mean", "max"] = "mean"  # the recalled text says max, the summary mean
    kind: Literal["contrast", "cosine"] = "contrast"  # cosine: 1 - cos(point, own segment) alone
    stop_gradient: bool = False  # of the pooled feature
    both_frames: bool = False  # at t+n too, averaged over the frames that have clusters
    segments: Literal["clusters", "superpoints"] = "clusters"  # geometric, or by superpixel

    def __post_init__(self) -> None:
        """Refuse a softmax without temperature, and superpoints where there are none."""
        check_temperature("point_to_segment", self.temperature)
        check(
            not (self.both_frames and self.segments == "superpoints"),
            "point_to_segment: segments must be clusters where both_frames is on, got superpoints; "
            "superpoints exist at t alone",
        )


def reads(config: Config) -> frozenset[str]:
    """Return what this loss looks at beside the points at t."""
    if config.segments == "superpoints":
        return frozenset({"superpixels"})
    return frozenset({"segments", "successor"} if config.both_frames else {"segments"})


def of_batch(encoded: Encoded, config: Config) -> Term:
    """Return the loss of a batch; superpoints exist at t alone."""
    batch = encoded.batch
    if config.segments == "superpoints":
        found = compact_ids(batch.ids, batch.pair_image, batch.pair_row, batch.pair_col)
        has_id = found.pairs >= 0
        rows, segment = batch.pair_voxel[has_id], found.pairs[has_id]
        return loss(encoded.points[0], rows, segment, found.num_superpixels, config)
    num_frames = 2 if config.both_frames else 1
    terms = [
        loss(points, clouds.rows, clouds.segment, len(batch.segment_sample), config)
        for points, clouds in list(zip(encoded.points, batch.frames, strict=True))[:num_frames]
    ]
    counted = [term for term in terms if term.num_contrasted] or terms
    value = torch.stack([term.value for term in counted]).mean()
    return Term(value, sum(term.num_contrasted for term in terms))


def loss(
    features: Tensor, rows: Tensor, segment: Tensor, num_segments: int, config: Config
) -> Term:
    """Return L_p2s of a batch.

    Args:
        features: [V, D] float, L2-normalized, of all voxels of the batch at t.
        rows: [A] int64, voxel of each clustered point (no ground, no noise).
        segment: [A] int64 in 0 .. num_segments - 1, its segment, numbered over the whole batch.
        num_segments: S; segments without a point take no part.
        config: temperature, pooling, gradient.

    Returns:
        The term; `num_contrasted` counts segments with a point.

    Raises:
        ValueError: rows and segment differ in length.

    Source: method.md 2.4, recalled form. Ours to choose: mean pooling, not re-normalized, with
    gradient on both sides; the mean goes over a segment's points first, then over segments
    (1 / (M_k N_k)), so that a wall does not outweigh a pedestrian.
    """
    if rows.shape != segment.shape:
        raise ValueError(
            f"point_to_segment: segment must be {list(rows.shape)} like rows, "
            f"got {list(segment.shape)}; give one segment per clustered point"
        )
    if not len(rows):
        return nothing(features)
    point_features = features.index_select(0, rows)  # [rows] adds its gradients in random order
    counts = torch.bincount(segment, minlength=num_segments)
    pooled = _pool(point_features, segment, num_segments, config)
    if config.stop_gradient:
        pooled = pooled.detach()
    present, weight = counts > 0, 1 / counts[segment]
    if config.kind == "cosine":
        cosine = F.cosine_similarity(point_features.float(), pooled.index_select(0, segment))
        value = ((1 - cosine) * weight).sum() / weight.sum()
    else:
        target = (present.cumsum(0) - 1)[segment]
        value = info_nce_to(point_features, pooled[present], target, config.temperature, weight)
    return Term(value, int(present.sum()))


def _pool(features: Tensor, segment: Tensor, num_segments: int, config: Config) -> Tensor:
    """Return one feature [S, D] float32 per segment."""
    if config.pooling == "mean":
        return segment_mean(features, segment, num_segments)[0]
    empty = features.new_zeros((num_segments, features.shape[1]), dtype=torch.float32)
    index = segment[:, None].expand(-1, features.shape[1])
    return empty.scatter_reduce(0, index, features.float(), "amax", include_self=False)

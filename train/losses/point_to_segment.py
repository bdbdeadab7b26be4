"""L_p2s: points against the mean of their own segment, within one frame.

In: normalized voxel features and the geometric segment of each clustered point. Out: InfoNCE of
each point against all segment means of the batch, which pulls a segment's points together.
"""

from dataclasses import dataclass

from torch import Tensor

from train.contrast import Term, info_nce_to, nothing
from train.pooling import segment_mean


@dataclass(frozen=True)
class Config:
    """Settings of L_p2s."""

    temperature: float = 0.07  # of the softmax; method.md 2.4, our choice


def loss(
    features: Tensor, rows: Tensor, segment: Tensor, num_segments: int, config: Config
) -> Term:
    """Return L_p2s of a batch.

    Args:
        features: [V, D] float, L2-normalized, of all voxels of the batch at t.
        rows: [A] int64, voxel of each clustered point (no ground, no noise).
        segment: [A] int64 in 0 .. num_segments - 1, its segment, numbered over the whole batch.
        num_segments: S; segments without a point take no part.
        config: temperature.

    Returns:
        The term; `num_contrasted` counts segments with a point.

    Raises:
        ValueError: rows and segment differ in length.

    Source: method.md 2.4, recalled form. Ours to choose: mean pooling, not re-normalized, with
    gradient on both sides, at t only; the mean goes over a segment's points first, then over
    segments (1 / (M_k N_k)), so that a wall does not outweigh a pedestrian.
    """
    if rows.shape != segment.shape:
        raise ValueError(
            f"point_to_segment: segment must be {list(rows.shape)} like rows, "
            f"got {list(segment.shape)}; give one segment per clustered point"
        )
    if not len(rows):
        return nothing(features)
    point_features = features.index_select(0, rows)  # [rows] adds its gradients in random order
    means, counts = segment_mean(point_features, segment, num_segments)
    present = counts > 0
    target = (present.cumsum(0) - 1)[segment]
    value = info_nce_to(
        point_features, means[present], target, config.temperature, weight=1 / counts[segment]
    )
    return Term(value, int(present.sum()))

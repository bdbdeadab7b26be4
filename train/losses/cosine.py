"""Distillation without contrast: each point towards its pixel's own teacher feature.

In: normalized voxel features as wide as the teacher's, the teacher's map and the point-pixel pairs
of a whole batch. Out: the mean distance between the two unit vectors of a pair.
"""

from dataclasses import dataclass

from torch import Tensor

from train.contrast import Term, nothing
from train.encoded import Encoded
from train.paired_pixels import read_pixels
from train.superpoints import check_pairs


@dataclass(frozen=True)
class Config:
    """Settings: none. No temperature, no head on the images, no negatives."""


def reads(config: Config) -> frozenset[str]:
    """Return what this loss looks at beside the points at t."""
    return frozenset({"images"})


def of_batch(encoded: Encoded, config: Config) -> Term:
    """Return the loss of a batch."""
    batch = encoded.batch
    return loss(
        encoded.points[0],
        encoded.teacher_map,
        batch.images.shape[2:],
        batch.pair_voxel,
        batch.pair_image,
        batch.pair_row,
        batch.pair_col,
    )


def loss(
    point_features: Tensor,
    teacher_map: Tensor,
    size: tuple[int, int],
    pair_voxel: Tensor,
    pair_image: Tensor,
    pair_row: Tensor,
    pair_col: Tensor,
) -> Term:
    """Return the mean over all pairs of |f - k|, which is sqrt(2 - 2 cos(f, k)).

    Args:
        point_features: [V, D] float, L2-normalized, of all voxels of the batch.
        teacher_map: [I, D, h', w'] float, the frozen teacher's own features.
        size: h, w of the images.
        pair_voxel: [M] int64, voxel of the paired point.
        pair_image: [M] int64, image of the pair.
        pair_row: [M] int64, pixel row in that image.
        pair_col: [M] int64, pixel column.

    Returns:
        The term; `num_contrasted` counts the pairs.

    Raises:
        ValueError: points and teacher differ in width, the pair arrays in length, or a pair points
            outside the images.

    Source: method.md 8 (ScaLR, valeoai/ScaLR, Apache-2.0; Puy et al., CVPR 2024). ScaLR reads one
    random camera per scan; here all cameras of the sample count.
    """
    check_pairs(pair_voxel, pair_image, pair_row, pair_col)
    if point_features.shape[1] != teacher_map.shape[1]:
        raise ValueError(
            f"cosine: point_features must be as wide as the teacher, {teacher_map.shape[1]}, got "
            f"{point_features.shape[1]}; set network.out_channels to that"
        )
    if not len(pair_voxel):
        return nothing(point_features)
    points = point_features.index_select(0, pair_voxel).float()
    pixels = read_pixels(teacher_map, pair_image, pair_row, pair_col, size)
    return Term((points - pixels).norm(dim=1).mean(), len(pair_voxel))

"""L_vfm: superpoints against superpixels.

In: normalized voxel features, the image head's map, superpixel ids and point-pixel pairs of a whole
batch. Out: InfoNCE of each superpoint's mean against the means of all superpixels of the batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.contrast import Term, check_temperature, info_nce, nothing
from train.encoded import Encoded
from train.parallel import gather_rows
from train.superpoints import pool_superpoints


@dataclass(frozen=True)
class Config:
    """Settings of L_vfm."""

    temperature: float = 0.07  # of the softmax; method.md 2.2 (SLidR)
    keep_none: bool = False  # contrast the pixels of id 0 too; method.md 1.3, ours is to leave out
    gather: bool = False  # superpixels of other processes are negatives too; the method has none

    def __post_init__(self) -> None:
        """Refuse a softmax without temperature."""
        check_temperature("superpixel_nce", self.temperature)


def reads(config: Config) -> frozenset[str]:
    """Return what this loss looks at beside the points at t."""
    return frozenset({"images", "superpixels"})


def of_batch(encoded: Encoded, config: Config) -> Term:
    """Return the loss of a batch."""
    batch = encoded.batch
    return loss(
        encoded.points[0],
        encoded.feature_map,
        batch.ids,
        batch.pair_voxel,
        batch.pair_image,
        batch.pair_row,
        batch.pair_col,
        config,
    )


def loss(
    point_features: Tensor,
    feature_map: Tensor,
    ids: Tensor,
    pair_voxel: Tensor,
    pair_image: Tensor,
    pair_row: Tensor,
    pair_col: Tensor,
    config: Config,
) -> Term:
    """Return L_vfm of a batch.

    Args:
        point_features: [V, D] float, L2-normalized, of all voxels of the batch.
        feature_map: [I, D, h', w'] float, image head's output for all images of the batch, before
            upsampling and normalization.
        ids: [I, h, w], any integer type; 0 = none, every image numbers its own.
        pair_voxel: [M] int64, voxel of the paired point; a voxel with several points counts more.
        pair_image: [M] int64, image of the pair.
        pair_row: [M] int64, pixel row in that image.
        pair_col: [M] int64, pixel column.
        config: temperature and the treatment of id 0.

    Returns:
        The term; `num_contrasted` counts superpixels with a paired point.

    Raises:
        ValueError: the pair arrays differ in length or point outside the images.

    Source: method.md 2.2 (SLidR, Apache-2.0). Differs in two things: ids are numbered from what
    is there (SLidR adds 150 per image, so larger ids run into the next image), and id 0 is left
    out by default. The order of images or pairs does not matter, so cameras need no shuffling.
    """
    pooled = pool_superpoints(
        point_features,
        feature_map,
        ids,
        pair_voxel,
        pair_image,
        pair_row,
        pair_col,
        config.keep_none,
    )
    none = point_features.new_zeros((0, point_features.shape[1]), dtype=torch.float32)
    keys = none if pooled is None else pooled.superpixel_means
    negatives = gather_rows(keys) if config.gather else None  # asked also where there is nothing
    if pooled is None:
        return nothing(point_features, feature_map)
    value = info_nce(pooled.superpoint_means, keys, config.temperature, negatives)
    return Term(value, pooled.superpixels.num_superpixels)

"""L_vfm: superpoints against superpixels.

In: normalized voxel features, the image head's map, superpixel ids and point-pixel pairs of a whole
batch. Out: InfoNCE of each superpoint's mean against the means of all superpixels of the batch.
"""

from dataclasses import dataclass

from torch import Tensor

from train.contrast import Term, info_nce, nothing
from train.pooling import compact_ids, pool_pixels, segment_mean


@dataclass(frozen=True)
class Config:
    """Settings of L_vfm."""

    temperature: float = 0.07  # of the softmax; method.md 2.2 (SLidR)
    keep_none: bool = False  # contrast the pixels of id 0 too; method.md 1.3, ours is to leave out


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
    lengths = {len(pair) for pair in (pair_voxel, pair_image, pair_row, pair_col)}
    if len(lengths) > 1:
        raise ValueError(
            f"superpixel_nce: pair arrays must have one length, got {sorted(lengths)}; "
            "pass the four columns of the same pairs"
        )
    superpixels = compact_ids(ids, pair_image, pair_row, pair_col, config.keep_none)
    if superpixels.num_superpixels < 1:
        return nothing(point_features, feature_map)
    has_id = superpixels.pairs >= 0
    # index_select: the gradient of point_features[...] is added up in random order by two threads
    paired = point_features.index_select(0, pair_voxel[has_id])
    superpoint_means, _ = segment_mean(
        paired, superpixels.pairs[has_id], superpixels.num_superpixels
    )
    superpixel_means, _ = pool_pixels(feature_map, superpixels)
    value = info_nce(superpoint_means, superpixel_means, config.temperature)
    return Term(value, superpixels.num_superpixels)

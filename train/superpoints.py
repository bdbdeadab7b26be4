"""Superpoints and superpixels of a batch as two tables of means, row by row the same thing.

In: voxel features, an image feature map, superpixel ids and point-pixel pairs. Out: the mean over
each superpixel's paired points and the mean over all of its pixels.
"""

from dataclasses import dataclass

from torch import Tensor

from train.pooling import CompactIds, compact_ids, pool_pixels, segment_mean


@dataclass(frozen=True)
class Superpoints:
    """The superpixels of a batch that have a paired point, both sides pooled."""

    superpoint_means: Tensor  # [S, D] float32, norm <= 1
    superpixel_means: Tensor  # [S, D] float32, norm <= 1
    superpixels: CompactIds


def pool_superpoints(
    point_features: Tensor,
    feature_map: Tensor,
    ids: Tensor,
    pair_voxel: Tensor,
    pair_image: Tensor,
    pair_row: Tensor,
    pair_col: Tensor,
    keep_none: bool = False,
) -> Superpoints | None:
    """Return the pooled superpixels of a batch; None where no pair hits one.

    Args:
        point_features: [V, D] float, of all voxels of the batch.
        feature_map: [I, D, h', w'] float, before upsampling and normalization.
        ids: [I, h, w], any integer type; 0 = none, every image numbers its own.
        pair_voxel: [M] int64, voxel of the paired point; a voxel with several points counts more.
        pair_image: [M] int64, image of the pair.
        pair_row: [M] int64, pixel row in that image.
        pair_col: [M] int64, pixel column.
        keep_none: treat id 0 as a superpixel like any other.

    Raises:
        ValueError: the pair arrays differ in length or point outside the images.

    Source: method.md 2.2 (SLidR, Apache-2.0).
    """
    check_pairs(pair_voxel, pair_image, pair_row, pair_col)
    superpixels = compact_ids(ids, pair_image, pair_row, pair_col, keep_none)
    if superpixels.num_superpixels < 1:
        return None
    has_id = superpixels.pairs >= 0
    # index_select: the gradient of point_features[...] is added up in random order by two threads
    paired = point_features.index_select(0, pair_voxel[has_id])
    superpoint_means, _ = segment_mean(
        paired, superpixels.pairs[has_id], superpixels.num_superpixels
    )
    superpixel_means, _ = pool_pixels(feature_map, superpixels)
    return Superpoints(superpoint_means, superpixel_means, superpixels)


def check_pairs(*columns: Tensor) -> None:
    """Check that the columns of the pairs have one length.

    Raises:
        ValueError: they have not.
    """
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise ValueError(
            f"pairs: pair arrays must have one length, got {sorted(lengths)}; "
            "pass the four columns of the same pairs"
        )

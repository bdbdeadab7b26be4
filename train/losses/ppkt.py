"""PPKT: points against pixels, pair by pair, without superpixels.

In: normalized voxel features, the image head's map and the point-pixel pairs of a whole batch. Out:
InfoNCE of some random pairs' points against the same pairs' pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import check
from train.contrast import Term, check_temperature, info_nce, nothing
from train.encoded import Encoded
from train.paired_pixels import read_pixels
from train.superpoints import check_pairs


@dataclass(frozen=True)
class Config:
    """Settings of PPKT as SLidR runs it; method.md 7."""

    temperature: float = 0.07  # of the softmax
    num_pairs: int = 4096  # drawn per batch, without replacement; all where there are fewer

    def __post_init__(self) -> None:
        """Refuse a loss without pairs."""
        check_temperature("ppkt", self.temperature)
        check(self.num_pairs >= 1, f"ppkt.num_pairs: must be at least 1, got {self.num_pairs}")


def reads(config: Config) -> frozenset[str]:
    """Return what this loss looks at beside the points at t."""
    return frozenset({"images"})


def of_batch(encoded: Encoded, config: Config) -> Term:
    """Return the loss of a batch."""
    batch = encoded.batch
    return loss(
        encoded.points[0],
        encoded.feature_map,
        batch.images.shape[2:],
        batch.pair_voxel,
        batch.pair_image,
        batch.pair_row,
        batch.pair_col,
        encoded.generator,
        config,
    )


def loss(
    point_features: Tensor,
    feature_map: Tensor,
    size: tuple[int, int],
    pair_voxel: Tensor,
    pair_image: Tensor,
    pair_row: Tensor,
    pair_col: Tensor,
    generator: torch.Generator,
    config: Config,
) -> Term:
    """Return the point-to-pixel loss of a batch.

    Args:
        point_features: [V, D] float, L2-normalized, of all voxels of the batch.
        feature_map: [I, D, h', w'] float, image head's output, before upsampling and normalization.
        size: h, w of the images.
        pair_voxel: [M] int64, voxel of the paired point.
        pair_image: [M] int64, image of the pair.
        pair_row: [M] int64, pixel row in that image.
        pair_col: [M] int64, pixel column.
        generator: draws the pairs; the only randomness.
        config: temperature and the number of pairs.

    Returns:
        The term; `num_contrasted` counts the pairs drawn.

    Raises:
        ValueError: the pair arrays differ in length or point outside the images.

    Source: method.md 7 (SLidR's `loss`, Apache-2.0), after Liu et al., arXiv 2104.04687. SLidR
    stops where a batch has fewer pairs; here all are taken.
    """
    check_pairs(pair_voxel, pair_image, pair_row, pair_col)
    if not len(pair_voxel):
        return nothing(point_features, feature_map)
    order = torch.randperm(len(pair_voxel), generator=generator, device=generator.device)
    drawn = order[: config.num_pairs].to(pair_voxel.device)
    points = point_features.index_select(0, pair_voxel[drawn])
    pixels = read_pixels(feature_map, pair_image[drawn], pair_row[drawn], pair_col[drawn], size)
    return Term(info_nce(points, pixels, config.temperature), len(drawn))

"""ST-SLidR: superpixel contrast that spares look-alikes and weighs rare superpixels up.

In: what the superpixel contrast takes, and the frozen teacher's own map, which tells how alike two
superpixels are. Out: InfoNCE over the superpixels of the batch, weighted per anchor.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import check
from train.contrast import Term, check_temperature, nothing
from train.encoded import Encoded
from train.pooling import CompactIds, segment_mean
from train.superpoints import pool_superpoints


@dataclass(frozen=True)
class Config:
    """Settings of ST-SLidR; method.md 7."""

    temperature: float = 0.07  # of the softmax
    spared: float = 0.01  # share of each anchor's candidates, the most similar, spared as negatives
    similar: float = 0.5  # cosine from which a superpixel counts as more of the same
    balanced: bool = True  # weigh anchors down that have many of the same

    def __post_init__(self) -> None:
        """Refuse shares outside 0 .. 1, and a softmax without temperature."""
        check_temperature("st_slidr", self.temperature)
        for name in ("spared", "similar"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"st_slidr.{name}: must be in 0 .. 1, got {value}")


def reads(config: Config) -> frozenset[str]:
    """Return what this loss looks at beside the points at t."""
    return frozenset({"images", "superpixels"})


def of_batch(encoded: Encoded, config: Config) -> Term:
    """Return the loss of a batch."""
    batch = encoded.batch
    return loss(
        encoded.points[0],
        encoded.feature_map,
        encoded.teacher_map,
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
    teacher_map: Tensor,
    ids: Tensor,
    pair_voxel: Tensor,
    pair_image: Tensor,
    pair_row: Tensor,
    pair_col: Tensor,
    config: Config,
) -> Term:
    """Return the semantically tolerant, class-balanced superpixel contrast of a batch.

    Args:
        point_features: [V, D] float, L2-normalized, of all voxels of the batch.
        feature_map: [I, D, h', w'] float, image head's output, before upsampling and normalization.
        teacher_map: [I, D', h', w'] float, the frozen teacher's own features.
        ids: [I, h, w], any integer type; 0 = none, every image numbers its own.
        pair_voxel: [M] int64, voxel of the paired point.
        pair_image: [M] int64, image of the pair.
        pair_row: [M] int64, pixel row in that image.
        pair_col: [M] int64, pixel column.
        config: temperature, what counts as alike, balance.

    Returns:
        The term; `num_contrasted` counts superpixels with a paired point and a cell of the map.

    Raises:
        ValueError: the pair arrays differ in length or point outside the images.

    Source: method.md 7 (TRAILab/ST-SLidR, Apache-2.0; Mahmoud et al., CVPR 2023). Id 0 is left
    out, as in our superpixel contrast.
    """
    pooled = pool_superpoints(
        point_features, feature_map, ids, pair_voxel, pair_image, pair_row, pair_col
    )
    if pooled is None:
        return nothing(point_features, feature_map)
    teacher_means, has_cell = pool_cells(teacher_map, pooled.superpixels)
    if not bool(has_cell.any()):
        return nothing(point_features, feature_map)
    units = F.normalize(teacher_means[has_cell], dim=1)
    similarity_SS = (units @ units.T).clamp(0, 1)
    queries, keys = pooled.superpoint_means[has_cell], pooled.superpixel_means[has_cell]
    with torch.autocast(queries.device.type, enabled=False):
        logits_SS = queries @ keys.T / config.temperature
        logits_SS = logits_SS * is_negative(similarity_SS, config.spared)
        target = torch.arange(len(queries), device=queries.device)
        losses_S = F.cross_entropy(logits_SS, target, reduction="none")
        weight_S = anchor_weights(similarity_SS, config) if config.balanced else 1 + 0 * losses_S
        value = (losses_S * weight_S).sum() / weight_S.sum()
    return Term(value, len(queries))


def pool_cells(teacher_map: Tensor, superpixels: CompactIds) -> tuple[Tensor, Tensor]:
    """Return the mean teacher feature [S, D'] float32 of every superpixel, and who has a cell [S].

    The ids come to the map's size by nearest neighbor, so a small superpixel may have no cell.
    """
    small = F.interpolate(superpixels.pixels[:, None].double(), teacher_map.shape[2:])
    cells = small[:, 0].long().flatten(1)  # [I, h' w'], -1 = none
    bounds = superpixels.offsets.tolist()
    means, counts = [], []
    for image, features in enumerate(teacher_map.float().flatten(2)):
        inside = cells[image] >= 0
        number = cells[image][inside] - bounds[image]
        mean, count = segment_mean(features.T[inside], number, bounds[image + 1] - bounds[image])
        means.append(mean)
        counts.append(count)
    return torch.cat(means), torch.cat(counts) > 0


def is_negative(similarity_SS: Tensor, spared: float) -> Tensor:
    """Return which candidates keep their logit, [S, S] float 0 or 1; the positive always does.

    Args:
        similarity_SS: [S, S] in 0 .. 1, row i for anchor i.
        spared: share of a row, the most similar candidates, whose logit becomes 0 (it stays in the
            softmax, as in the source).
    """
    distance = 1 - similarity_SS
    keep = (distance >= _row_quantile(distance, spared)[:, None]) & (distance > 0)
    return (keep | torch.eye(len(distance), dtype=torch.bool, device=distance.device)).float()


def anchor_weights(similarity_SS: Tensor, config: Config) -> Tensor:
    """Return each anchor's weight [S] in 0 .. 1: 1 for the least, 0 for the most frequent look."""
    alike = (similarity_SS * (similarity_SS >= config.similar)).sum(1)
    spread = alike.max() - alike.min()
    return 1 - (alike - alike.min()) / spread if spread > 0 else torch.ones_like(alike)


def _row_quantile(values: Tensor, part: float) -> Tensor:
    """Return each row's quantile, linear between ranks (torch.quantile stops at 16 M numbers)."""
    position = part * (values.shape[1] - 1)
    low, high = (
        values.kthvalue(rank + 1).values for rank in (math.floor(position), math.ceil(position))
    )
    return low + (high - low) * (position - math.floor(position))

"""Fine-tuning on few labels and many unlabeled scans: mean teacher with LaserMix.

In: a pretrained network, labeled and unlabeled frames. Out: the mean teacher. Each step takes as
many unlabeled as labeled scans: the teacher, a running mean of the network, labels the unlabeled
ones where it is sure, both kinds are mixed, and the network learns from the labels, from the mixed
scans, and to agree with the teacher.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.progress import Progress
from train.augment import augment_cloud
from train.batch import join_cells, make_cloud
from train.downstream import Downstream, groups_of, set_cosine, take_step
from train.lasermix import LabeledPoints, mix
from train.models.minkunet import MinkUNet
from train.segmentation_loss import IGNORED, segmentation_loss
from train.stores import Stores
from train.voxelize import VoxelConfig


@dataclass(frozen=True)
class SemiSupervised:
    """What is trained on what."""

    stores: Stores
    labeled: np.ndarray  # [R] index rows
    unlabeled: np.ndarray  # [R'] index rows; their labels are never read
    voxels: VoxelConfig
    config: Downstream
    device: str


@dataclass(frozen=True)
class _Voxels:
    """Some scans as one network input, with the label of each voxel's first point."""

    features: Tensor  # [V, 1]
    coordinates: Tensor  # [V, 4]
    labels: Tensor  # [V] int64
    voxel_of_point: list[np.ndarray]  # per scan, [N] row of its first voxel + voxel


def train_semi_supervised(
    network: MinkUNet, optimizer: torch.optim.Optimizer, task: SemiSupervised
) -> MinkUNet:
    """Train every layer and return the mean teacher.

    Args:
        network: with its new last layer; changed in place.
        optimizer: over its parameters, groups with `first_lr`.
        task: frames and protocol; an epoch is as many labeled scans as there are.

    Raises:
        UserError: a loss that is not finite.

    Source: Kong et al., CVPR 2023 (LaserMix), mean teacher after Tarvainen and Valpola, 2017.
    """
    config = task.config
    teacher = copy.deepcopy(network).eval().requires_grad_(False)
    progress = Progress("semi-supervised", config.epochs * len(task.labeled))
    for epoch in range(config.epochs):
        set_cosine(optimizer, epoch, config.epochs)
        for pairs in groups_of(_pairs(task, epoch), config.batch_size):
            loss = take_step(optimizer, _loss(network.train(), teacher, pairs, task))
            update_teacher(teacher, network, config.mean_teacher.decay)
            progress.advance(len(pairs), f"loss {loss:.3f}")
    progress.close()
    return teacher


@torch.no_grad()
def update_teacher(teacher: MinkUNet, network: MinkUNet, decay: float) -> None:
    """Move the teacher's parameters a step towards the network's; statistics are copied."""
    own = dict(network.named_parameters())
    for name, value in teacher.named_parameters():
        value.lerp_(own[name], 1 - decay)
    for mine, theirs in zip(teacher.buffers(), network.buffers(), strict=True):
        mine.copy_(theirs)


def pseudo_labels(logits: Tensor, confidence: float) -> np.ndarray:
    """Return each voxel's most likely class [V] uint8, 255 below the confidence."""
    probability, label = logits.softmax(1).max(1)
    label[probability < confidence] = IGNORED
    return label.cpu().numpy().astype(np.uint8)


def _loss(
    network: MinkUNet,
    teacher: MinkUNet,
    pairs: list[tuple[LabeledPoints, LabeledPoints, int]],
    task: SemiSupervised,
) -> Tensor:
    """Return the weighted sum of the three losses of a step."""
    settings = task.config.mean_teacher
    known = _voxels([pair[0] for pair in pairs], task)
    unknown = _voxels([pair[1] for pair in pairs], task)
    with torch.no_grad():
        guess = teacher(unknown.features, unknown.coordinates)
    total = segmentation_loss(network(known.features, known.coordinates), known.labels)
    if settings.consistency_weight:
        own = network(unknown.features, unknown.coordinates).float().softmax(1)
        difference = (own - guess.float().softmax(1)).square().mean()
        total = total + settings.consistency_weight * difference
    if settings.mix_weight:
        labels = pseudo_labels(guess, settings.confidence)
        scans = []
        for (one, other, num_areas), at in zip(pairs, unknown.voxel_of_point, strict=True):
            scans += mix(one, LabeledPoints(other.points, labels[at]), num_areas)
        mixed = _voxels(scans, task)
        logits = network(mixed.features, mixed.coordinates)
        total = total + settings.mix_weight * segmentation_loss(logits, mixed.labels)
    return total


def _pairs(task: SemiSupervised, epoch: int) -> Iterator[tuple[LabeledPoints, LabeledPoints, int]]:
    """Yield a labeled scan, an unlabeled one and the number of bands to cut them into."""
    config, stores = task.config, task.stores
    order = np.random.default_rng((config.seed, epoch, 0)).permutation(task.labeled).tolist()
    drawn = np.random.default_rng((config.seed, epoch, 3)).choice(task.unlabeled, len(order))
    for position, rows in enumerate(zip(order, drawn.tolist(), strict=True)):
        rng = np.random.default_rng((config.seed, epoch, 2, position))
        known, unknown = (augment_cloud(stores.points(row), rng) for row in rows)
        yield (
            LabeledPoints(known, stores.labels(rows[0])),
            LabeledPoints(unknown, np.full(len(unknown), IGNORED, np.uint8)),
            int(rng.choice(config.mean_teacher.areas)),
        )


def _voxels(scans: list[LabeledPoints], task: SemiSupervised) -> _Voxels:
    clouds = [make_cloud(scan.points, np.zeros(0, np.uint16), task.voxels) for scan in scans]
    features, coordinates = join_cells(clouds)
    starts = np.cumsum([0] + [len(cloud.cells) for cloud in clouds])
    labels = np.concatenate(
        [
            scan.labels[np.unique(cloud.voxel_idx, return_index=True)[1]]
            for scan, cloud in zip(scans, clouds, strict=True)
        ]
    )
    return _Voxels(
        features.to(task.device),
        coordinates.to(task.device),
        torch.from_numpy(labels.astype(np.int64)).to(task.device),
        [cloud.voxel_idx + start for cloud, start in zip(clouds, starts, strict=False)],
    )

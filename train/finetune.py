"""Downstream training: a linear probe on frozen features, or fine-tuning on few labels.

In: a network (pretrained or random) and labeled frames. Out: the same network, trained.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.progress import Progress
from train.augment import augment_cloud
from train.batch import Cloud, join_cells, make_cloud
from train.downstream import Downstream, groups_of, make_sgd, set_cosine, take_step
from train.engines.contract import Pointwise
from train.linear import train_linear
from train.models.minkunet import MinkUNet, set_momentum
from train.segmentation_loss import IGNORED, segmentation_loss
from train.semi_supervised import SemiSupervised, train_semi_supervised
from train.stores import Stores
from train.voxelize import VoxelConfig


@dataclass(frozen=True)
class _Task:
    """What is trained on what."""

    network: MinkUNet
    stores: Stores
    rows: np.ndarray  # [R]
    voxels: VoxelConfig
    config: Downstream
    device: str


def train_downstream(
    network: MinkUNet,
    stores: Stores,
    rows: np.ndarray,
    num_classes: int,
    voxels: VoxelConfig,
    config: Downstream,
    device: str = "cpu",
    unlabeled: np.ndarray | None = None,
) -> MinkUNet:
    """Give the network a new last layer with `num_classes` outputs, train it and return it.

    Args:
        network: changed in place; its last layer is replaced.
        stores: labeled frames.
        rows: [R] index rows to train on.
        num_classes: K, none for the ignored class.
        voxels: grid.
        config: protocol.
        device: torch device.
        unlabeled: [R'] index rows that `config.mean_teacher` trains on without labels; what is
            returned is then the mean teacher.
    """
    torch.manual_seed(config.seed)
    network.final = Pointwise(network.backbone_channels, num_classes, bias=True)
    network.out_channels = num_classes
    network.to(device)
    if config.calibrate:
        calibrate_norms(network, stores, rows, voxels, config.seed, device)
    task = _Task(network, stores, rows, voxels, config, device)
    if config.freeze:
        _train_last_layer(task)
    elif config.mean_teacher.is_on:
        rows = np.zeros(0, np.int64) if unlabeled is None else unlabeled
        semi = SemiSupervised(stores, task.rows, rows, voxels, config, device)
        network = train_semi_supervised(network, _optimizer(network, config), semi)
    else:
        _train_all(task)
    return network.eval()


def calibrate_norms(
    network: MinkUNet, stores: Stores, rows: np.ndarray, voxels: VoxelConfig, seed: int, device: str
) -> None:
    """Replace batch-norm statistics by those of at most 64 training scans (plain averages)."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    network.train()
    chosen = np.random.default_rng(seed).permutation(rows)[:64]
    with torch.no_grad():
        for row in chosen.tolist():
            cloud = make_cloud(stores.points(row), np.zeros(0, np.uint16), voxels)
            features, coordinates = join_cells([cloud])
            network.encode(features.to(device), coordinates.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def labeled_cloud(
    stores: Stores, row: int, voxels: VoxelConfig, rng: np.random.Generator
) -> tuple[Cloud, np.ndarray]:
    """Return an augmented cloud and the label [V] of each voxel's representative point."""
    cloud = make_cloud(augment_cloud(stores.points(row), rng), np.zeros(0, np.uint16), voxels)
    first = np.full(len(cloud.cells), len(cloud.voxel_idx), np.int64)
    np.minimum.at(first, cloud.voxel_idx, np.arange(len(cloud.voxel_idx)))
    return cloud, stores.labels(row)[first]


def _train_last_layer(task: _Task) -> None:
    task.network.eval()
    train_linear(
        task.network.final, lambda epoch: _frozen_features(task, epoch), len(task.rows), task.config
    )


def _frozen_features(task: _Task, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (features [V, C] float16, labels [V]) of the labeled voxels of each frame."""
    limit = task.config.max_voxels
    for cloud, labels, rng in _labeled_clouds(task, epoch):
        with torch.no_grad():
            features, coordinates = join_cells([cloud])
            encoded = task.network.encode(features.to(task.device), coordinates.to(task.device))
        known = np.flatnonzero(labels != IGNORED)
        if limit and len(known) > limit:
            known = np.sort(rng.choice(known, limit, replace=False))
        chosen = torch.from_numpy(known).to(task.device)
        target = torch.from_numpy(labels[known].astype(np.int64)).to(task.device)
        yield encoded.index_select(0, chosen).half(), target


def _train_all(task: _Task) -> None:
    """Train every layer; the new last one may have its own learning rate."""
    network, config, device = task.network.train(), task.config, task.device
    optimizer = _optimizer(network, config)
    progress = Progress("finetune", config.epochs * len(task.rows))
    for epoch in range(config.epochs):
        set_cosine(optimizer, epoch, config.epochs)
        for batch in groups_of(_labeled_clouds(task, epoch), config.batch_size):
            features, coordinates = join_cells([cloud for cloud, _, _ in batch])
            labels = np.concatenate([labels for _, labels, _ in batch]).astype(np.int64)
            logits = network(features.to(device), coordinates.to(device))
            value = segmentation_loss(logits, torch.from_numpy(labels).to(device))
            loss = take_step(optimizer, value)
            progress.advance(len(batch), f"loss {loss:.3f}")
    progress.close()


def _optimizer(network: MinkUNet, config: Downstream) -> torch.optim.SGD:
    """Return the optimizer of trunk and last layer; sets the norms' momentum of the protocol."""
    set_momentum(network, config.bn_momentum, config.block_bn_momentum)
    final = {id(p) for p in network.final.parameters()}
    trunk = [p for p in network.parameters() if id(p) not in final]
    head_lr = config.lr if config.head_lr is None else config.head_lr
    groups = [
        {"params": trunk, "lr": config.lr},
        {"params": list(network.final.parameters()), "lr": head_lr},
    ]
    return make_sgd(groups, config)


def _labeled_clouds(
    task: _Task, epoch: int
) -> Iterator[tuple[Cloud, np.ndarray, np.random.Generator]]:
    """Yield each frame's augmented cloud, voxel labels and generator, in an epoch's own order."""
    seed = task.config.seed
    order = np.random.default_rng((seed, epoch, 0)).permutation(task.rows).tolist()
    for position, row in enumerate(order):
        rng = np.random.default_rng((seed, epoch, 2, position))
        cloud, labels = labeled_cloud(task.stores, row, task.voxels, rng)
        yield cloud, labels, rng

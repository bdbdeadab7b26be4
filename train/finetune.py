"""Downstream training: a linear probe on frozen features, or fine-tuning on few labels.

In: a network (pretrained or random) and labeled frames. Out: the same network, trained.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import check
from pipeline.progress import Progress
from train.augment import augment_cloud
from train.batch import Cloud, join_cells, make_cloud
from train.engines.contract import Pointwise
from train.models.minkunet import MinkUNet
from train.segmentation_loss import IGNORED, segmentation_loss
from train.stores import Stores
from train.voxelize import VoxelConfig


@dataclass(frozen=True)
class Downstream:
    """How the labels are used; defaults are the linear probe of method.md 5.2."""

    freeze: bool = True  # only the last layer trains, the network stays in eval mode
    lr: float = 0.05  # of the trunk; of the last layer where the trunk is frozen
    head_lr: float | None = None  # of the new last layer; None = lr
    epochs: int = 50
    batch_size: int = 16
    momentum: float = 0.9
    dampening: float = 0.1
    weight_decay: float = 1e-4
    bn_momentum: float = 0.02
    feature_passes: int | None = None  # frozen: augmented passes kept in memory; None = every epoch
    max_voxels: int | None = None  # frozen: labeled voxels kept per frame and pass; None = all
    calibrate: bool = False  # estimate batch-norm statistics on training scans first
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that train nothing."""
        for name in ("epochs", "batch_size", "feature_passes", "max_voxels"):
            value = getattr(self, name)
            check(value is None or value >= 1, f"{name}: must be at least 1, got {value}")


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
) -> MinkUNet:
    """Give the network a new last layer with `num_classes` outputs and train it.

    Args:
        network: changed in place; its last layer is replaced.
        stores: labeled frames.
        rows: [R] index rows to train on.
        num_classes: K, none for the ignored class.
        voxels: grid.
        config: protocol.
        device: torch device.
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
    """Train the last layer on features of the frozen trunk.

    The trunk is frozen and in eval mode, so the features of one augmented pass are the same in
    every epoch; `feature_passes` of them are computed once and kept (float16) instead of running
    the trunk in every epoch, which SLidR's protocol does.
    """
    config, final = task.config, task.network.final
    task.network.eval()
    optimizer = _sgd([{"params": final.parameters(), "lr": config.lr}], config)
    kept: list[list[tuple[Tensor, Tensor]]] = []
    progress = Progress("probe", config.epochs * len(task.rows))
    for epoch in range(config.epochs):
        _cosine(optimizer, epoch, config.epochs)
        if config.feature_passes is None:
            features = _frozen_features(task, epoch)
        else:
            if epoch < config.feature_passes:
                kept.append(list(_frozen_features(task, epoch)))
            order = np.random.default_rng((config.seed, epoch, 1)).permutation(len(task.rows))
            features = (kept[epoch % len(kept)][i] for i in order)
        for batch in _groups(features, config.batch_size):
            x = torch.cat([pair[0] for pair in batch]).float()
            y = torch.cat([pair[1] for pair in batch])
            loss = _step(optimizer, final(x), y)
            progress.advance(len(batch), f"loss {loss:.3f}")
    progress.close()


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
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = config.bn_momentum
    final = {id(p) for p in network.final.parameters()}
    trunk = [p for p in network.parameters() if id(p) not in final]
    head_lr = config.lr if config.head_lr is None else config.head_lr
    groups = [
        {"params": trunk, "lr": config.lr},
        {"params": list(network.final.parameters()), "lr": head_lr},
    ]
    optimizer = _sgd(groups, config)
    progress = Progress("finetune", config.epochs * len(task.rows))
    for epoch in range(config.epochs):
        _cosine(optimizer, epoch, config.epochs)
        for batch in _groups(_labeled_clouds(task, epoch), config.batch_size):
            features, coordinates = join_cells([cloud for cloud, _, _ in batch])
            labels = np.concatenate([labels for _, labels, _ in batch]).astype(np.int64)
            logits = network(features.to(device), coordinates.to(device))
            loss = _step(optimizer, logits, torch.from_numpy(labels).to(device))
            progress.advance(len(batch), f"loss {loss:.3f}")
    progress.close()


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


def _step(optimizer: torch.optim.SGD, logits: Tensor, labels: Tensor) -> float:
    """Take one step and return the loss.

    Raises:
        UserError: the loss is not finite.
    """
    loss = segmentation_loss(logits, labels)
    value = loss.item()
    check(math.isfinite(value), f"downstream loss: must be finite, got {value}; lower lr, head_lr")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return value


def _sgd(groups: list[dict], config: Downstream) -> torch.optim.SGD:
    optimizer = torch.optim.SGD(
        groups,
        momentum=config.momentum,
        dampening=config.dampening,
        weight_decay=config.weight_decay,
    )
    for group in optimizer.param_groups:
        group["first_lr"] = group["lr"]
    return optimizer


def _cosine(optimizer: torch.optim.SGD, epoch: int, epochs: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["first_lr"] * (1 + math.cos(math.pi * epoch / epochs)) / 2


def _groups(items: Iterator, size: int) -> Iterator[list]:
    while group := list(itertools.islice(items, size)):
        yield group

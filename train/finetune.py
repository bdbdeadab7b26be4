"""Downstream training: a linear probe on frozen features, or fine-tuning on few labels.

In: a network (pretrained or random) and labeled frames. Out: the trained network, and its confusion
matrix over the points of the validation frames.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.progress import Progress
from train.augment import augment_cloud
from train.batch import Cloud, join_cells, make_cloud
from train.engines.contract import Pointwise
from train.metrics import confusion
from train.models.minkunet import MinkUNet
from train.segmentation_loss import segmentation_loss
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
    network.to(device)
    if config.calibrate:
        calibrate_norms(network, stores, rows, voxels, config.seed, device)
    if config.freeze:
        _train_last_layer(network, stores, rows, voxels, config, device)
    else:
        _train_all(network, stores, rows, voxels, config, device)
    return network.eval()


def evaluate(
    network: MinkUNet,
    stores: Stores,
    rows: np.ndarray,
    num_classes: int,
    voxels: VoxelConfig,
    device: str = "cpu",
) -> Tensor:
    """Return the confusion matrix [K, K] int64 over all points of the frames.

    Each point takes the prediction of its own voxel; no augmentation (method.md 6.1).
    """
    network.eval()
    total = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    progress = Progress("evaluate", len(rows))
    for row in rows.tolist():
        cloud = make_cloud(stores.points(row), np.zeros(0, np.uint16), voxels)
        with torch.no_grad():
            features, coordinates = join_cells([cloud])
            predicted = network(features.to(device), coordinates.to(device)).argmax(1).cpu()
        points = predicted[torch.from_numpy(cloud.voxel_idx)]
        total += confusion(torch.from_numpy(stores.labels(row)), points, num_classes)
        progress.advance()
    progress.close()
    return total


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


def _train_last_layer(
    network: MinkUNet,
    stores: Stores,
    rows: np.ndarray,
    voxels: VoxelConfig,
    config: Downstream,
    device: str,
) -> None:
    """Train the last layer on features of the frozen trunk.

    The trunk is frozen and in eval mode, so the features of one augmented pass are the same in
    every epoch; `feature_passes` of them are computed once and kept (float16) instead of running
    the trunk in every epoch, which SLidR's protocol does.
    """
    network.eval()
    optimizer = _sgd([{"params": network.final.parameters(), "lr": config.lr}], config)
    num_passes = min(config.feature_passes or config.epochs, config.epochs)
    kept: list[list[tuple[Tensor, Tensor]]] = []
    progress = Progress("probe", config.epochs * len(rows))
    for epoch in range(config.epochs):
        _cosine(optimizer, epoch, config.epochs)
        if epoch < num_passes:
            features = _frozen_features(network, stores, rows, voxels, config, epoch, device)
        rng = np.random.default_rng((config.seed, 1, epoch))
        if config.feature_passes is not None:
            if epoch < num_passes:
                kept.append(list(features))
            features = iter([kept[epoch % num_passes][i] for i in rng.permutation(len(rows))])
        for batch in _groups(features, config.batch_size):
            x = torch.cat([pair[0] for pair in batch]).float()
            y = torch.cat([pair[1] for pair in batch])
            loss = segmentation_loss(network.final(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            progress.advance(len(batch), f"loss {loss.item():.3f}")
    progress.close()


def _frozen_features(
    network: MinkUNet,
    stores: Stores,
    rows: np.ndarray,
    voxels: VoxelConfig,
    config: Downstream,
    epoch: int,
    device: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (features [V, C] float16, labels [V]) of the labeled voxels of each frame."""
    order = np.random.default_rng((config.seed, 0, epoch)).permutation(rows).tolist()
    for position, row in enumerate(order):
        rng = np.random.default_rng((config.seed, epoch, position, 2))
        cloud, labels = labeled_cloud(stores, row, voxels, rng)
        with torch.no_grad():
            features, coordinates = join_cells([cloud])
            encoded = network.encode(features.to(device), coordinates.to(device))
        known = np.flatnonzero(labels != 255)
        if config.max_voxels and len(known) > config.max_voxels:
            known = np.sort(rng.choice(known, config.max_voxels, replace=False))
        chosen = torch.from_numpy(known)
        target = torch.from_numpy(labels[known].astype(np.int64)).to(device)
        yield encoded[chosen.to(device)].half(), target


def _train_all(
    network: MinkUNet,
    stores: Stores,
    rows: np.ndarray,
    voxels: VoxelConfig,
    config: Downstream,
    device: str,
) -> None:
    """Train every layer; the new last one may have its own learning rate."""
    network.train()
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
    progress = Progress("finetune", config.epochs * len(rows))
    for epoch in range(config.epochs):
        _cosine(optimizer, epoch, config.epochs)
        order = np.random.default_rng((config.seed, 0, epoch)).permutation(rows).tolist()
        for numbered in _groups(iter(enumerate(order)), config.batch_size):
            pairs = [
                labeled_cloud(
                    stores, row, voxels, np.random.default_rng((config.seed, epoch, at, 2))
                )
                for at, row in numbered
            ]
            features, coordinates = join_cells([cloud for cloud, _ in pairs])
            labels = torch.from_numpy(np.concatenate([y for _, y in pairs]).astype(np.int64))
            logits = network(features.to(device), coordinates.to(device))
            loss = segmentation_loss(logits, labels.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            progress.advance(len(pairs), f"loss {loss.item():.3f}")
    progress.close()


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
    group = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group

"""A trained network on labeled frames: the confusion matrix over all their points."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.progress import Progress
from train.batch import join_cells, make_cloud
from train.metrics import confusion
from train.models.minkunet import MinkUNet
from train.stores import Stores
from train.voxelize import VoxelConfig


@dataclass(frozen=True)
class Confusions:
    """Confusion matrices [K, K] int64, rows = truth."""

    points: Tensor  # over all points
    seen: Tensor | None  # over the points that a camera sees; None = projections are not known


def evaluate(
    network: MinkUNet,
    stores: Stores,
    rows: np.ndarray,
    num_classes: int,
    voxels: VoxelConfig,
    device: str = "cpu",
    what: str = "evaluate",
) -> Confusions:
    """Return the confusion matrices over the points of the frames.

    Each point takes the prediction of its own voxel; no augmentation (method.md 6.1). `what` is
    the word in front of the progress.
    """
    network.eval()
    total = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    total_seen = torch.zeros_like(total) if stores.holds("projections", rows) else None
    progress = Progress(what, len(rows))
    for row in rows.tolist():
        cloud = make_cloud(stores.points(row), np.zeros(0, np.uint16), voxels)
        with torch.no_grad():
            features, coordinates = join_cells([cloud])
            predicted = network(features.to(device), coordinates.to(device)).argmax(1).cpu()
        points = predicted[torch.from_numpy(cloud.voxel_idx)]
        labels = torch.from_numpy(stores.labels(row))
        total += confusion(labels, points, num_classes)
        if total_seen is not None:
            seen = torch.from_numpy(stores.seen(row, len(points)))
            total_seen += confusion(labels[seen], points[seen], num_classes)
        progress.advance()
    progress.close()
    return Confusions(total, total_seen)

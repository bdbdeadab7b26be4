"""A trained network on labeled frames: the confusion matrix over all their points."""

import numpy as np
import torch
from torch import Tensor

from pipeline.progress import Progress
from train.batch import join_cells, make_cloud
from train.metrics import confusion
from train.models.minkunet import MinkUNet
from train.stores import Stores
from train.voxelize import VoxelConfig


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

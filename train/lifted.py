"""The image teacher's own features at the points that a camera sees: what there is to distill.

In: a frame's whole images and point-pixel pairs. Out: one feature per seen point, and a linear
layer on them that tells how much of the classes the teacher holds, without any 3D network.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.augment import Config as Augment
from train.augment import PairedSample, resize_eval
from train.downstream import Downstream
from train.linear import Features, train_linear
from train.metrics import confusion
from train.models.image_teacher import ImageTeacher
from train.segmentation_loss import IGNORED
from train.stores import Stores

LIFTED_STAGES = ("frames", "projections")  # what is read


def lift(
    teacher: ImageTeacher, sample: PairedSample, augment: Augment, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return the teacher's feature of every point that a pixel sees.

    Args:
        teacher: frozen.
        sample: one frame.
        augment: size to which whole images are resized.
        device: torch device of the teacher.

    Returns:
        features [P, D] float32, read bilinearly at the paired pixel and averaged over the cameras
        that see the point, not normalized; and the points [P] int64, ascending, rows of
        `sample.points`.

    Source: upsampling as method.md 2.1 (align_corners=True), read at the pairs alone.
    """
    resized = resize_eval(sample, augment)
    if not resized.images:
        return torch.zeros(0, teacher.dim), torch.zeros(0, dtype=torch.int64)
    images = torch.from_numpy(np.stack(resized.images)).permute(0, 3, 1, 2)
    feature_map = teacher(images.to(device).float() / 255)
    grid = np.stack(
        [
            resized.pair_col / (augment.width - 1) * 2 - 1,
            resized.pair_row / (augment.height - 1) * 2 - 1,
        ],
        axis=1,
    )  # [M, 2] x, y in -1 .. 1
    points, owner = np.unique(resized.pair_point, return_inverse=True)
    sums = torch.zeros(len(points), teacher.dim)
    for number in range(len(resized.images)):
        here = np.flatnonzero(resized.pair_image == number)
        at = torch.from_numpy(grid[here]).to(feature_map)[None, None]
        found = F.grid_sample(feature_map[number : number + 1], at, align_corners=True)
        sums.index_add_(0, torch.from_numpy(owner[here]), found[0, :, 0].T.cpu())
    counts = torch.from_numpy(np.bincount(owner, minlength=len(points)))
    return sums / counts[:, None], torch.from_numpy(points)


def train_lifted(
    teacher: ImageTeacher,
    stores: Stores,
    rows: np.ndarray,
    num_classes: int,
    augment: Augment,
    config: Downstream,
    device: str = "cpu",
) -> nn.Module:
    """Train a linear layer on the lifted features of labeled frames and return it.

    Whole images, no augmentation, so one pass is computed and kept whatever the protocol says.
    A batch norm without parameters comes first: teachers differ in scale by a factor of forty,
    and the point features they are compared with come out of a batch norm too.

    Args:
        teacher: frozen.
        stores: labeled frames with images and projections.
        rows: [R] index rows.
        num_classes: K.
        augment: image size.
        config: protocol.
        device: torch device.
    """
    torch.manual_seed(config.seed)
    norm = nn.BatchNorm1d(teacher.dim, affine=False, momentum=None)
    final = nn.Sequential(norm, nn.Linear(teacher.dim, num_classes)).to(device).train()
    kept = list(_labeled_features(teacher, stores, rows, augment, config, device))

    def features_at(epoch: int) -> Iterator[Features]:
        order = np.random.default_rng((config.seed, epoch, 0)).permutation(len(kept))
        return (kept[i] for i in order)

    train_linear(final, features_at, len(rows), config)
    return final.eval()


def evaluate_lifted(
    teacher: ImageTeacher,
    final: nn.Module,
    stores: Stores,
    rows: np.ndarray,
    num_classes: int,
    augment: Augment,
    device: str = "cpu",
) -> Tensor:
    """Return the confusion matrix [K, K] int64 over the points that a camera sees."""
    total = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for row in rows.tolist():
        features, points = lift(teacher, stores.paired_sample(row, LIFTED_STAGES), augment, device)
        with torch.no_grad():
            predicted = final(features.to(device)).argmax(1).cpu()
        labels = torch.from_numpy(stores.labels(row)).index_select(0, points)
        total += confusion(labels, predicted, num_classes)
    return total


def _labeled_features(
    teacher: ImageTeacher,
    stores: Stores,
    rows: np.ndarray,
    augment: Augment,
    config: Downstream,
    device: str,
) -> Iterator[Features]:
    """Yield (features [P, D] float16, labels [P]) of the labeled seen points of each frame."""
    for position, row in enumerate(rows.tolist()):
        features, points = lift(teacher, stores.paired_sample(row, LIFTED_STAGES), augment, device)
        labels = stores.labels(row)[points.numpy()].astype(np.int64)
        known = np.flatnonzero(labels != IGNORED)
        if config.max_voxels and len(known) > config.max_voxels:
            rng = np.random.default_rng((config.seed, 2, position))
            known = np.sort(rng.choice(known, config.max_voxels, replace=False))
        chosen = torch.from_numpy(known)
        yield (
            features.index_select(0, chosen).half().to(device),
            torch.from_numpy(labels[known]).to(device),
        )

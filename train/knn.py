"""A quick look at what a network has learned: the classes of each point's nearest neighbors.

In: frozen features of a few labeled frames. Out: accuracy and mIoU of a vote among the k nearest
features of other frames, and pictures from above, truth beside vote. Nothing is trained, and no
random state of the run is touched; a linear probe (`make probe`) is what counts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.batch import join_cells, make_cloud
from train.metrics import IGNORED, confusion, scores
from train.stores import StorePaths, Stores
from train.training import Training

BANK_FRAMES, QUERY_FRAMES = 16, 4
BANK_VOXELS = 1000  # per frame
NEIGHBORS = 20
TEMPERATURE = 0.07  # of a neighbor's vote, exp(cosine / T), as usual for such probes
PICTURES = 2
_SIDE_PX, _SIDE_M = 256, 100.0  # of a picture from above


@dataclass(frozen=True)
class Look:
    """What the neighbors say, in percent."""

    accuracy: float
    miou: float
    pictures: tuple[np.ndarray, ...]  # [3, 256, 520] uint8: truth, vote


def look(training: Training, paths: StorePaths) -> Look | None:
    """Return a quick look at a network's features; None where the data set has no labels.

    Args:
        training: its network is left in the mode that it was in.
        paths: the data set. Neighbors come from `train`, the questions from `val`, evenly spaced.
    """
    stores = Stores(paths)
    bank_rows, query_rows = (
        _labeled_rows(stores, split, count)
        for split, count in (("train", BANK_FRAMES), ("val", QUERY_FRAMES))
    )
    if not len(bank_rows) or not len(query_rows):
        return None
    was_training = training.network.training
    training.network.eval()
    try:
        with torch.no_grad():
            bank = [_features(training, stores, row, BANK_VOXELS) for row in bank_rows]
            queries = [_features(training, stores, row, None) for row in query_rows]
    finally:
        training.network.train(was_training)
    known, classes = torch.cat([f for f, _, _ in bank]), torch.cat([c for _, c, _ in bank])
    num_classes = len(stores.taxonomy["classes"])
    total, pictures = torch.zeros(num_classes, num_classes, dtype=torch.int64), []
    for features, truth, xy in queries:
        found = vote(features, known, classes, num_classes)
        total += confusion(truth.cpu(), found.cpu(), num_classes)
        pictures.append(draw(xy, truth, found, _colors(stores)))
    accuracy = 100 * total.diagonal().sum().item() / max(total.sum().item(), 1)
    return Look(accuracy, scores(total).miou, tuple(pictures[:PICTURES]))


def vote(features: Tensor, known: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Return the class [Q] int64 that the nearest known features vote for.

    Args:
        features: [Q, D] float32 of unit length.
        known: [B, D] float32 of unit length.
        classes: [B] int64, of the known ones.
        num_classes: K.

    Source: the weighted vote of Wu et al., arXiv 1805.01978: exp(cosine / 0.07) of the 20 nearest.
    """
    votes = []
    for part in features.split(4096):
        cosine, nearest = (part @ known.T).topk(min(NEIGHBORS, len(known)), dim=1)
        tally = part.new_zeros(len(part), num_classes)
        votes.append(tally.scatter_add(1, classes[nearest], (cosine / TEMPERATURE).exp()).argmax(1))
    return torch.cat(votes)


def draw(xy: np.ndarray, truth: Tensor, found: Tensor, colors: np.ndarray) -> np.ndarray:
    """Return truth and vote of points from above, side by side, [3, 256, 520] uint8.

    Args:
        xy: [Q, 2] float, m; 50 m to each side are shown.
        truth: [Q] int64.
        found: [Q] int64.
        colors: [K, 3] uint8.
    """
    pixel = np.floor((xy + _SIDE_M / 2) / _SIDE_M * _SIDE_PX).astype(np.int64)
    inside = ((pixel >= 0) & (pixel < _SIDE_PX)).all(1)
    column, line = pixel[inside, 0], _SIDE_PX - 1 - pixel[inside, 1]
    panels = []
    for of_point in (truth, found):
        panel = np.zeros((_SIDE_PX, _SIDE_PX, 3), np.uint8)
        panel[line, column] = colors[of_point.cpu().numpy()[inside]]
        panels.append(panel)
    gap = np.full((_SIDE_PX, 8, 3), 255, np.uint8)
    return np.concatenate([panels[0], gap, panels[1]], axis=1).transpose(2, 0, 1)


def _labeled_rows(stores: Stores, split: str, count: int) -> list[int]:
    """Return up to `count` rows of a split, evenly spaced, that have labels."""
    if split not in stores.index.splits:
        return []
    rows = stores.index.split_mask(split).nonzero()[0]
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))] if len(rows) else []
    frames = stores.store("frames")
    return [int(r) for r in chosen if not frames.missing(int(r)) and frames.read("has_labels", r)]


def _features(
    training: Training, stores: Stores, row: int, limit: int | None
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return features [V, D], classes [V] and places [V, 2] in m of a frame's labeled voxels."""
    points, labels = stores.points(row), stores.labels(row)
    cloud = make_cloud(points, labels.astype(np.uint16), training.recipe.voxels)
    first = np.full(len(cloud.cells), len(points), np.int64)
    np.minimum.at(first, cloud.voxel_idx, np.arange(len(points)))  # a voxel's first point
    features, coordinates = join_cells([cloud])
    device = training.machine.device
    encoded = training.encode_cells(features.to(device), coordinates.to(device))
    known = np.flatnonzero(labels[first] != IGNORED)
    if limit is not None and len(known) > limit:
        known = np.random.default_rng(row).permutation(known)[:limit]
    chosen = torch.from_numpy(known).to(encoded.device)
    classes = torch.from_numpy(labels[first[known]].astype(np.int64)).to(encoded.device)
    return encoded.index_select(0, chosen), classes, points[first[known], :2]


def _colors(stores: Stores) -> np.ndarray:
    taxonomy = stores.taxonomy
    return np.array([taxonomy["colors"][name] for name in taxonomy["classes"]], np.uint8)

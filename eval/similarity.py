"""What the pretrained network thinks is alike: cosine similarity of all points to a chosen one.

In: a pretraining's checkpoint and a frame. Out: similarities, and their picture from above. The
features are those of the shared space in which points and pixels were contrasted.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from eval.start import find_start, load_network
from eval.view import RANGE_M, point_outputs, render
from train.stores import Stores
from train.trainer import Machine

EPSILON = 1e-12  # of a feature without length
PREFERRED = ("car", "truck", "pedestrian", "vegetation", "manmade", "building")


def nearest_point(points: np.ndarray, near_m: tuple[float, float]) -> int:
    """Return the row of the point [N, 4] whose x, y in m lie nearest to a place; N > 0."""
    return int(np.linalg.norm(points[:, :2] - near_m, axis=1).argmin())


def choose_query(points: np.ndarray, labels: np.ndarray, classes: list[str]) -> int:
    """Return a point worth comparing with: the nearest of the first of some classes that occurs.

    Args:
        points: [N, 4] m, N > 0.
        labels: [N] train ids, 255 = ignored.
        classes: names by train id.

    Returns:
        its row; the nearest point of all where none of these classes occurs.
    """
    range_m = np.linalg.norm(points[:, :3], axis=1)
    for name in PREFERRED:
        if name in classes:
            members = np.flatnonzero(labels == classes.index(name))
            if len(members):
                return int(members[range_m[members].argmin()])
    return int(range_m.argmin())


def point_similarity(
    checkpoint: Path, stores: Stores, row: int, query: int, machine: Machine
) -> np.ndarray:
    """Return the cosine similarity [N] float32 of every point's feature to the query's.

    Points are fed as in the pretraining, however the stores were opened.

    Raises:
        UserError: no checkpoint of a pretraining.
    """
    start = find_start(checkpoint.parent, "checkpoint", "", checkpoint)
    network = load_network(start, machine, 0).to(machine.device)
    stores = Stores(replace(stores.paths, intensity=start.intensity))
    features = point_outputs(network, stores.points(row), start.voxels)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), EPSILON)
    return features @ features[query]


def similarity_page(points: np.ndarray, similarity: np.ndarray, query: int, title: str) -> bytes:
    """Return a PNG of the similarities from above; the query carries a cross.

    Args:
        points: [N, 4] m.
        similarity: [N] -1..1.
        query: row of the chosen point.
        title: of the page.
    """
    figure = Figure(figsize=(7.6, 6.6), dpi=90, layout="constrained")
    axes = figure.subplots()
    order = np.argsort(similarity)  # alike on top
    dots = axes.scatter(
        *points[order, :2].T, s=1.5, c=similarity[order], cmap="coolwarm", vmin=-1, vmax=1,
        linewidths=0,
    )  # fmt: skip
    axes.plot(*points[query, :2], "kx", markersize=11, markeredgewidth=2)
    axes.set(xlim=(-RANGE_M, RANGE_M), ylim=(-RANGE_M, RANGE_M), xlabel="x (m)", ylabel="y (m)")
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=10)
    figure.colorbar(dots, label="cosine similarity to the point at the cross")
    return render(figure)

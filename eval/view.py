"""Pictures of what a network says: predictions, truth and errors from above; no display needed."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.errors import check
from train.batch import join_cells, make_cloud
from train.models.minkunet import MinkUNet
from train.stores import Stores
from train.voxelize import VoxelConfig

RANGE_M = 40.0  # half the side of the square shown
IGNORED = 255
GRAY, RED = np.array([200, 200, 200], np.uint8), np.array([220, 30, 30], np.uint8)
NO_CURVE = ("epoch", "step", "lr", "fallbacks", "unpaired")  # in metrics.jsonl, but no losses


@dataclass(frozen=True)
class Picture:
    """A drawn page."""

    title: str
    png: bytes


@dataclass(frozen=True)
class Prediction:
    """What a network says of one frame."""

    points: np.ndarray  # [N, 4] float32
    labels: np.ndarray  # [N] uint8 train ids, 255 = ignored
    predicted: np.ndarray  # [N] uint8

    def __post_init__(self) -> None:
        """Refuse truth or prediction of another length."""
        count = len(self.points)
        for name in ("labels", "predicted"):
            check(
                len(getattr(self, name)) == count,
                f"prediction: {name} must be one per point ({count}), got "
                f"{len(getattr(self, name))}; predict that scan again",
            )

    def paints(self, colors: np.ndarray) -> dict[str, np.ndarray]:
        """Return colors [N, 3] uint8 of truth, prediction and errors (red); gray: not evaluated.

        Args:
            colors: [K, 3] uint8 by train id.
        """
        known = self.labels != IGNORED
        wrong = known & (self.labels != self.predicted)
        return {
            "truth": np.where(known[:, None], colors[np.where(known, self.labels, 0)], GRAY),
            "prediction": colors[self.predicted],
            "errors": np.where(wrong[:, None], RED, GRAY),
        }


def predict(network: MinkUNet, stores: Stores, row: int, voxels: VoxelConfig) -> Prediction:
    """Return truth and prediction of every point of a frame."""
    points = stores.points(row)
    classes = point_outputs(network, points, voxels).argmax(1)
    return Prediction(points, stores.labels(row), classes.astype(np.uint8))


def point_outputs(network: MinkUNet, points: np.ndarray, voxels: VoxelConfig) -> np.ndarray:
    """Return what the network says of each point [N, C] float32, alike in one voxel.

    Args:
        network: runs in evaluation mode, on its own device.
        points: [N, 4] m and intensity.
        voxels: as it was trained with.
    """
    cloud = make_cloud(points, np.zeros(0, np.uint16), voxels)
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        features, coordinates = (each.to(device) for each in join_cells([cloud]))
        return network(features, coordinates).cpu().numpy()[cloud.voxel_idx]


def prediction_page(shown: Prediction, colors: np.ndarray, classes: list[str], title: str) -> bytes:
    """Return a PNG: truth, prediction, and errors in red, all from above.

    Args:
        shown: one frame.
        colors: [K, 3] uint8 by train id.
        classes: names by train id.
        title: of the page.
    """
    figure = Figure(figsize=(15, 6.2), dpi=90, layout="compressed")
    known = shown.labels != IGNORED
    wrong = known & (shown.labels != shown.predicted)
    truth, prediction, errors = shown.paints(colors).values()
    accuracy = 100 * (1 - wrong.sum() / max(known.sum(), 1))
    panels = [
        ("truth (gray: not evaluated)", truth),
        ("prediction", prediction),
        (f"errors in red, {accuracy:.1f} % of points right", errors),
    ]
    for axes, (name, paint) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.scatter(shown.points[:, 0], shown.points[:, 1], s=1.2, c=paint / 255, linewidths=0)
        axes.set(xlim=(-RANGE_M, RANGE_M), ylim=(-RANGE_M, RANGE_M), title=name, xlabel="x (m)")
        axes.set_aspect("equal")
    present = np.unique(np.concatenate([shown.labels[known], shown.predicted]))
    handles = [
        axes.plot([], [], "o", color=colors[k] / 255, label=classes[k])[0] for k in present.tolist()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=8, fontsize=8)
    figure.suptitle(title)
    return render(figure)


def confusion_page(matrix: np.ndarray, classes: list[str], title: str) -> bytes:
    """Return a PNG of a confusion matrix [K, K], each row in percent of its truth."""
    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(7.5, 6.5), dpi=90, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, vmin=0, vmax=100, cmap="Blues")
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set(xlabel="predicted", ylabel="truth", title=title)
    figure.colorbar(image, label="% of the points of a class")
    return render(figure)


def has_curves(lines: list[dict]) -> bool:
    """Return whether any line of metrics.jsonl has a loss."""
    return any(line.keys() - set(NO_CURVE) for line in lines)


def curves_page(lines: list[dict], title: str) -> bytes:
    """Return a PNG of the losses of a run over its steps, each in its own panel.

    Args:
        lines: of metrics.jsonl; a loss that had nothing to contrast is missing from its line.
        title: of the page.
    """
    names = list(dict.fromkeys(n for line in lines for n in line if n not in NO_CURVE))
    figure = Figure(figsize=(3.6 * len(names), 3.2), dpi=90, layout="constrained")
    steps = [line["step"] for line in lines]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        at = [step for step, line in zip(steps, lines, strict=True) if name in line]
        values = np.array([line[name] for line in lines if name in line])
        axes.plot(at, values, color="0.8", linewidth=0.8)
        window = max(len(values) // 50, 1)
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        mark = "o" if len(smooth) < 2 else None  # a line of one step would not be seen
        axes.plot(at[window - 1 :], smooth, color="tab:blue", marker=mark)
        axes.set(title=name, xlabel="step")
    figure.suptitle(title)
    return render(figure)


def render(figure: Figure) -> bytes:
    """Return a figure as PNG bytes."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

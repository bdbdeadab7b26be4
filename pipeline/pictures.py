"""Pictures of what stage one made: superpixels, projected points, segments; no display needed.

In: arrays as the stores hold them. Out: pages as [H, W, 3] uint8 RGB, for PNG files and the report.
Figures are drawn by Agg directly, never through pyplot, so no global state and no backend choice.
"""

from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, hsv_to_rgb
from matplotlib.figure import Figure

from pipeline.files import write_atomically
from pipeline.schema import NOT_SEEN

_DPI = 100
_PANEL_WIDTH_IN = 6.4
_GRAY = 0.62
_NEAR_M, _FAR_M = 2.0, 80.0  # ends of the depth colors
_GOLDEN = 0.618033988749895


def superpixel_page(
    images: list[np.ndarray], ids: list[np.ndarray], names: list[str]
) -> np.ndarray:
    """Return camera images under translucent superpixels with their borders.

    Args:
        images: [H, W, 3] uint8 RGB each, sizes may differ.
        ids: [H, W] unsigned each, size of its image; 0 = none, left uncolored.
        names: titles.
    """
    figure, panels = _image_grid(images, names)
    for panel, image, regions, name in zip(panels, images, ids, names, strict=True):
        panel.imshow(_paint_regions(image, regions))
        count = len(np.unique(regions[regions > 0]))
        panel.set_title(f"{name}: {count} superpixels", fontsize=10)
    return _render(figure)


def projection_page(
    images: list[np.ndarray], uv: list[np.ndarray], depth: list[np.ndarray], names: list[str]
) -> np.ndarray:
    """Return camera images with the points they see, colored by depth.

    Args:
        images: [H, W, 3] uint8 RGB each.
        uv: [N, 2] pixel column, row per camera, in pixels of its image; -1 = not seen.
        depth: [N] m along the optical axis per camera.
        names: titles.
    """
    figure, panels = _image_grid(images, names)
    dots = None
    for panel, image, pixels, depth_cam, name in zip(panels, images, uv, depth, names, strict=True):
        panel.imshow(image)
        seen = np.flatnonzero(pixels[:, 0] != NOT_SEEN)
        far_first = seen[np.argsort(-depth_cam[seen], kind="stable")]
        dots = panel.scatter(
            *pixels[far_first].T,
            c=depth_cam[far_first],
            s=2.5,
            linewidths=0,
            cmap="turbo_r",
            norm=LogNorm(_NEAR_M, _FAR_M),
        )
        panel.set_xlim(-0.5, image.shape[1] - 0.5)
        panel.set_ylim(image.shape[0] - 0.5, -0.5)
        panel.set_title(f"{name}: {len(seen)} points", fontsize=10)
    bar = figure.colorbar(dots, ax=panels, fraction=0.02, pad=0.01)
    bar.set_label("depth (m)")
    ticks_m = [2, 5, 10, 20, 40, 80]
    bar.set_ticks(ticks_m, labels=[str(t) for t in ticks_m], minor=False)
    bar.ax.minorticks_off()
    return _render(figure)


def segments_page(
    points_t: np.ndarray, ids_t: np.ndarray, points_s: np.ndarray, ids_s: np.ndarray
) -> np.ndarray:
    """Return frame t and its successor from above, one color per segment, gray = none.

    Args:
        points_t: [N, >=2] m; x to the right of the page, y up.
        ids_t: [N] segment ids, 0 = none.
        points_s: [M, >=2] m, best moved to the frame of points_t so that the eye can compare.
        ids_s: [M] segment ids of the successor.
    """
    figure = Figure(figsize=(16, 8.4), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    colors = id_colors(int(max(ids_t.max(initial=0), ids_s.max(initial=0))))
    everything = np.abs(np.concatenate([points_t[:, :2], points_s[:, :2]]))
    reach_m = np.percentile(everything, 98) if everything.size else 0.0
    limit_m = np.clip(np.ceil(reach_m / 5) * 5, 5, 100)
    frames = [("frame t", points_t, ids_t), ("successor", points_s, ids_s)]
    for panel, (name, points, ids) in zip(panels, frames, strict=True):
        is_plain = ids == 0
        panel.scatter(*points[is_plain, :2].T, c=[(_GRAY,) * 3], s=0.4, linewidths=0)
        panel.scatter(*points[~is_plain, :2].T, c=colors[ids[~is_plain]] / 255, s=1.6, linewidths=0)
        panel.plot(0, 0, "k+", markersize=10)
        share = 1 - is_plain.mean() if len(ids) else 0.0
        count = len(np.unique(ids[~is_plain]))
        panel.set_title(f"{name}: {count} segments, {share:.0%} of {len(ids)} points", fontsize=11)
        panel.set_xlim(-limit_m, limit_m)
        panel.set_ylim(-limit_m, limit_m)
        panel.set_aspect("equal")
        panel.set_xlabel("x (m)")
        panel.set_ylabel("y (m)")
    return _render(figure)


def labels_page(
    points: np.ndarray, train_ids: np.ndarray, classes: list[str], colors: np.ndarray, title: str
) -> np.ndarray:
    """Return a labeled scan from above, with the classes that occur; gray = ignored.

    Args:
        points: [N, >=2] m; x to the right of the page, y up.
        train_ids: [N] uint8, 255 = ignored.
        classes: K names by train id.
        colors: [K, 3] uint8 RGB.
        title: of the page.
    """
    figure = Figure(figsize=(11.5, 8.4), dpi=_DPI, layout="compressed")
    panel = figure.subplots()
    reach_m = np.percentile(np.abs(points[:, :2]), 98) if len(points) else 0.0
    limit_m = np.clip(np.ceil(reach_m / 5) * 5, 5, 100)
    ignored = train_ids >= len(classes)
    panel.scatter(*points[ignored, :2].T, c=[(_GRAY,) * 3], s=0.4, linewidths=0)
    for train_id in np.unique(train_ids[~ignored]).tolist():
        here = train_ids == train_id
        name = f"{classes[train_id]} ({here.mean():.1%})"
        panel.scatter(
            *points[here, :2].T, c=[colors[train_id] / 255], s=1.6, linewidths=0, label=name
        )
    panel.plot(0, 0, "k+", markersize=10)
    panel.set_title(f"{title}: {ignored.mean():.0%} of {len(points)} points ignored", fontsize=11)
    panel.set_xlim(-limit_m, limit_m)
    panel.set_ylim(-limit_m, limit_m)
    panel.set_aspect("equal")
    panel.set_xlabel("x (m)")
    panel.set_ylabel("y (m)")
    if not ignored.all():
        figure.legend(loc="outside right upper", markerscale=6, fontsize=8, frameon=False)
    return _render(figure)


def write_page(path: Path, page: np.ndarray) -> None:
    """Write a page [H, W, 3] uint8 RGB as PNG, whole or not at all."""
    _, data = cv2.imencode(".png", cv2.cvtColor(page, cv2.COLOR_RGB2BGR))
    write_atomically(path, data.tobytes())


def id_colors(max_id: int) -> np.ndarray:
    """Return [max_id + 1, 3] uint8 RGB: gray for 0, else hues a golden step apart.

    Ids that follow each other look different, and an id has the same color on every page.
    """
    number = np.arange(max_id + 1)
    hsv = np.stack(
        [number * _GOLDEN % 1, 0.65 + 0.35 * (number % 3) / 2, 1 - 0.35 * (number // 3 % 2)], axis=1
    )
    colors = hsv_to_rgb(hsv)
    colors[0] = _GRAY
    return np.rint(colors * 255).astype(np.uint8)


def _paint_regions(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the image with ids blended in and a bright border where the id changes."""
    painted = image.copy()
    has_id = ids > 0
    colors = id_colors(int(ids.max(initial=0)))
    blend = cv2.addWeighted(image, 0.65, colors[ids], 0.35, 0)
    painted[has_id] = blend[has_id]
    border = np.zeros(ids.shape, np.uint8)
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    border[1:] |= ids[1:] != ids[:-1]
    width_px = max(1, round(ids.shape[1] / 600))  # pages show images smaller than they are
    painted[cv2.dilate(border, np.ones((width_px, width_px), np.uint8)) > 0] = (255, 255, 90)
    return painted


def _image_grid(images: list[np.ndarray], names: list[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per image: up to 3 across, wide images one below the other."""
    if not images or len(images) != len(names):
        raise ValueError(
            f"images must be 1 or more with one name each, got {len(images)} and {len(names)}"
        )
    aspect = max(image.shape[0] / image.shape[1] for image in images)
    across = 1 if aspect < 0.4 else {1: 1, 2: 2, 4: 2}.get(len(images), 3)
    rows = -(-len(images) // across)
    width_in = _PANEL_WIDTH_IN * (2 if across == 1 else 1)
    figure = Figure(
        figsize=(across * width_in, rows * (width_in * aspect + 0.3)),
        dpi=_DPI,
        layout="constrained",
    )
    panels = figure.subplots(rows, across, squeeze=False).ravel().tolist()
    for panel in panels:
        panel.set_axis_off()
    return figure, panels[: len(images)]


def _render(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()

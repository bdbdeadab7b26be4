"""Which validation frames to show, and what sources and networks say there."""

from pathlib import Path

import numpy as np

from eval.clouds import write_ply, write_rerun
from eval.predictor import Predictor, as_measured, load_predictor
from eval.results import read_results
from eval.similarity import choose_query, nearest_point, point_similarity, similarity_page
from eval.sources_page import read_sources, sources_page
from eval.view import Picture, predict, prediction_page
from pipeline.errors import UserError, check
from pipeline.files import write_atomically
from train.run_folder import CHECKPOINT
from train.stores import Stores
from train.trainer import Machine

SPLIT = "val"


def draw_scenes(
    runs: Path,
    stores: Stores,
    num_frames: int,
    machine: Machine,
    near_m: tuple[float, float] | None = None,
) -> list[Picture]:
    """Return a page per network and frame, frames evenly spaced over validation.

    First the superpixel sources on one image, then similarities of each pretrained network, then
    predictions of each measured one.

    Args:
        runs: folder of runs.
        stores: the data set; results on others, or whose network is gone, are left out.
        num_frames: frames per result.
        machine: sparse engine and device.
        near_m: x, y in the LiDAR frame; similarities are to the point nearest to it, else to one
            of a class that `choose_query` prefers.
    """
    rows = shown_rows(stores, num_frames)
    if not len(rows):
        return []
    first = int(rows[0])
    pictures = []
    if views := read_sources(stores, first):
        title = f"superpixel sources on one image, {stores.index.frame_ids[first]}"
        pictures.append(Picture(title, sources_page(views)))
    return (
        pictures
        + _similarities(runs, stores, first, machine, near_m)
        + _predictions(runs, stores, rows, machine)
    )


def view_frames(
    predictor: Predictor, stores: Stores, num_frames: int, out: Path
) -> tuple[list[Path], str]:
    """Write predictions of validation frames as PNG, PLY (truth, prediction, errors) and `.rrd`.

    Returns:
        the files, and why there is no recording ('' where there is one).

    Raises:
        UserError: other classes than the stores', or no validation frame.
    """
    stores = as_measured(stores, predictor.result)
    rows, colors = shown_rows(stores, num_frames), class_colors(stores)
    check(len(rows) > 0, f"{stores.paths.folder}: split '{SPLIT}' must hold frames, got none")
    check(
        list(predictor.classes) == list(stores.taxonomy["classes"]),
        f"{predictor.path}: checkpoint must have the {len(colors)} classes of "
        f"{stores.paths.folder}, got {len(predictor.classes)} ({predictor.classes[0]}, ...); give "
        "the data set it was trained on",
    )
    written, recorded = [], []
    for row in rows.tolist():
        frame_id = stores.index.frame_ids[row]
        shown = predict(predictor.network, stores, row, predictor.voxels)
        page = out / f"row{row:06d}.png"
        write_atomically(page, prediction_page(shown, colors, list(predictor.classes), frame_id))
        written.append(page)
        layers = shown.paints(colors)
        for name, paint in layers.items():
            path = out / f"row{row:06d}-{name}.ply"
            write_ply(path, shown.points, paint)
            written.append(path)
        recorded.append((frame_id, shown.points, layers))
    try:
        write_rerun(out / "frames.rrd", recorded)
    except UserError as error:  # optional: the rest is there without it
        return written, str(error)
    return [*written, out / "frames.rrd"], ""


def shown_rows(stores: Stores, num_frames: int) -> np.ndarray:
    """Return up to so many rows of the validation frames that the store holds, evenly spaced."""
    rows = stores.index.split_mask(SPLIT).nonzero()[0]
    rows = np.setdiff1d(rows, list(stores.left_out(rows, ("frames",))))
    return rows[np.linspace(0, len(rows) - 1, min(num_frames, len(rows))).astype(int)]


def class_colors(stores: Stores) -> np.ndarray:
    """Return the color of every class [K, 3] uint8 by train id."""
    taxonomy = stores.taxonomy
    return np.array([taxonomy["colors"][name] for name in taxonomy["classes"]], np.uint8)


def _similarities(
    runs: Path, stores: Stores, row: int, machine: Machine, near_m: tuple[float, float] | None
) -> list[Picture]:
    classes, found = list(stores.taxonomy["classes"]), []
    points, labels = stores.points(row), stores.labels(row)
    query = nearest_point(points, near_m) if near_m else choose_query(points, labels, classes)
    x, y, _ = points[query, :3]
    name = classes[labels[query]] if labels[query] < len(classes) else "unlabeled"
    place = f"{name} at {x:.1f}, {y:.1f} m"
    for path in sorted(runs.glob(f"*/{CHECKPOINT}")):
        try:
            similarity = point_similarity(path, stores, row, query, machine)
        except UserError:  # another kind of checkpoint than a pretraining's of this code
            continue
        frame_id = stores.index.frame_ids[row]
        title = f"{path.parent.name}: cosine similarity to a point ({place}), {frame_id}"
        about = f"{path.parent.name}\n{place}\n{frame_id}"
        found.append(Picture(title, similarity_page(points, similarity, query, about)))
    return found


def _predictions(runs: Path, stores: Stores, rows: np.ndarray, machine: Machine) -> list[Picture]:
    pictures = []
    for run, result in read_results(runs):
        path = runs / run / "results" / f"{result.name}.pt"
        if result.place != stores.paths.folder.resolve().name or not path.exists():
            continue
        predictor = load_predictor(path, machine.engine)
        predictor.network.to(machine.device)
        seen = as_measured(stores, result)
        colors = class_colors(seen)
        for row in rows.tolist():
            frame_id = stores.index.frame_ids[row]
            title = f"{run}, {result.protocol} {result.split}: {result.place} {frame_id}"
            shown = predict(predictor.network, seen, row, predictor.voxels)
            png = prediction_page(shown, colors, list(result.classes), title)
            pictures.append(Picture(title, png))
    return pictures

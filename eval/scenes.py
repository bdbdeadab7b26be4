"""Which validation frames to show, and what the measured networks say there."""

from pathlib import Path

import numpy as np

from eval.results import Result, read_results
from eval.view import Picture, predict, prediction_page
from pipeline.config import override
from train.checkpoint import load_checkpoint, load_into
from train.models.minkunet import MinkUNet
from train.recipes import Network
from train.stores import Stores
from train.trainer import make_network
from train.voxelize import VoxelConfig

SPLIT = "val"


def draw_scenes(runs: Path, stores: Stores, num_frames: int, engine: str) -> list[Picture]:
    """Return a page per measured network and frame, frames evenly spaced over validation.

    Args:
        runs: folder of runs.
        stores: the data set; results on others, or whose network is gone, are left out.
        num_frames: frames per result.
        engine: sparse engine.
    """
    attributes, index = stores.store("frames").attributes, stores.index
    colors = np.array([attributes["colors"][name] for name in attributes["classes"]], np.uint8)
    rows = index.split_mask(SPLIT).nonzero()[0]
    rows = np.setdiff1d(rows, list(stores.left_out(rows, ("frames",))))
    rows = rows[np.linspace(0, len(rows) - 1, min(num_frames, len(rows))).astype(int)]
    pictures = []
    for run, result in read_results(runs):
        path = runs / run / "results" / f"{result.name}.pt"
        if result.place != stores.paths.folder.resolve().name or not path.exists():
            continue
        network = _load_predictor(path, result, engine)
        for row in rows.tolist():
            frame_id = index.frame_ids[row]
            title = f"{run}, {result.protocol} {result.split}: {result.place} {frame_id}"
            shown = predict(network, stores, row, VoxelConfig(**result.voxels))
            png = prediction_page(shown, colors, list(result.classes), title)
            pictures.append(Picture(title, png))
    return pictures


def _load_predictor(path: Path, result: Result, engine: str) -> MinkUNet:
    content = load_checkpoint(path, "network", "network_settings")
    network = make_network(override(Network(), content["network_settings"]), engine)
    load_into(network, content["network"], str(path))
    return network

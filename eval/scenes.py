"""Which validation frames to show, and what the probed runs predict there."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from eval.report import Scene
from eval.results import read_results
from eval.view import predict
from pipeline.config import override
from train.checkpoint import load_checkpoint, load_into
from train.recipes import Network
from train.stores import Stores
from train.trainer import make_network
from train.voxelize import VoxelConfig


def choose_scenes(runs: Path, stores: Stores, num_frames: int, engine: str) -> list[Scene]:
    """Return predictions of every run's linear probe on evenly spaced validation frames.

    Args:
        runs: folder of runs.
        stores: the data set; results of others are left out.
        num_frames: frames per run.
        engine: sparse engine.
    """
    rows = np.flatnonzero(stores.index.split_mask("val"))
    rows = rows[np.linspace(0, len(rows) - 1, min(num_frames, len(rows))).astype(int)]
    scenes = []
    for run, result in read_results(runs):
        path = runs / run / "results" / f"{result.protocol}.pt"
        if result.dataset != stores.index.dataset or not path.exists():
            continue
        content = load_checkpoint(path)
        config = replace(Network(), out_channels=len(result.classes))
        config = override(config, content["network_settings"])
        network = make_network(config, engine)
        load_into(network, content["network"], str(path))
        voxels = VoxelConfig(**result.voxels)
        for row in rows.tolist():
            title = f"{run}, {result.protocol}: {stores.index.frame(row).frame_id}"
            scenes.append(Scene(run, title, predict(network, stores, row, voxels)))
    return scenes

"""A measured network from its two files: `results/<name>.pt` and the result beside it.

In: a checkpoint that `make probe` or `make fewshot` wrote. Out: the network, its grid, its classes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eval.results import NORMALIZED, Result, read_result
from pipeline.config import override
from pipeline.errors import check
from pipeline.files import sha256_file
from train.checkpoint import load_checkpoint, load_into
from train.models.minkunet import MinkUNet
from train.recipes import Network
from train.stores import IntensityScale, Stores
from train.trainer import make_network
from train.voxelize import VoxelConfig

ADVICE = "give the .pt file in results/ that 'make probe' or 'make fewshot' wrote"


@dataclass(frozen=True)
class Predictor:
    """A network that gives points a class."""

    network: MinkUNet
    voxels: VoxelConfig
    classes: tuple[str, ...]  # by train id
    scale: IntensityScale  # of the data set it was trained on
    result: Result  # what was measured with it
    path: Path
    hash: str  # of its file
    engine: str

    def feed(self, intensity: np.ndarray) -> np.ndarray:
        """Return raw intensities [N] float32 as the network takes them."""
        return self.scale.feed(intensity, fed_as(self.result))


def load_predictor(path: Path, engine: str) -> Predictor:
    """Return the predictor of a checkpoint.

    Args:
        path: `<run>/results/<protocol>-<data set>-<split>.pt`.
        engine: sparse engine.

    Raises:
        UserError: missing, a pretraining's checkpoint, no result beside it, or another number of
            classes than that result's.
    """
    content = load_checkpoint(path)
    missing = {"network", "network_settings", "intensity"} - content.keys()
    check(
        not missing,
        f"{path}: checkpoint must predict classes, got one without {', '.join(sorted(missing))}; "
        f"{ADVICE}",
    )
    beside = path.with_suffix(".json")
    check(beside.is_file(), f"{path}: must have its result {beside.name} beside it; {ADVICE}")
    result = read_result(beside)
    settings = override(Network(), content["network_settings"])
    check(
        settings.out_channels == len(result.classes),
        f"{path}: checkpoint must have the {len(result.classes)} classes of {beside.name}, got "
        f"{settings.out_channels}; {ADVICE}",
    )
    network = make_network(settings, engine)
    load_into(network, content["network"], str(path))
    return Predictor(
        network.eval(),
        VoxelConfig(**result.voxels),
        tuple(result.classes),
        IntensityScale(**content["intensity"]),
        result,
        path,
        hash_network(path),
        engine,
    )


def hash_network(path: Path) -> str:
    """Return a hash of a network's file."""
    return sha256_file(path)[:16]


def as_measured(stores: Stores, result: Result) -> Stores:
    """Return the stores with the classes and the intensity that a result was measured with."""
    return Stores(replace(stores.paths, taxonomy=result.taxonomy, intensity=fed_as(result)))


def fed_as(result: Result) -> str:
    """Return how a result's network was fed intensity, 'slidr' or 'normalized'."""
    return "normalized" if result.features == NORMALIZED else "slidr"

"""What a downstream network starts from: a checkpoint, random weights, or an image teacher."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.errors import check
from pipeline.files import sha256_file
from train.checkpoint import load_into
from train.models.minkunet import MinkUNet
from train.recipes import Network, Recipe, load_recipe
from train.run_folder import CHECKPOINT
from train.trainer import Machine, make_network
from train.voxelize import VoxelConfig
from train.weights import read_weights


@dataclass(frozen=True)
class Start:
    """What the network starts from."""

    network: Network
    voxels: VoxelConfig
    init: str  # '<recipe>[/<source>]', 'random' or '<recipe>/teacher'
    epochs: int = 0  # of pretraining
    checkpoint: Path | None = None
    teacher: Recipe | None = None  # the recipe whose image teacher is measured instead
    intensity: str = "slidr"  # how the checkpoint was fed
    hash: str = ""  # of the checkpoint's file when it was read; '' = none


def find_start(run: Path, init: str, recipe_name: str, checkpoint: Path | None) -> Start:
    """Return what a downstream run starts from.

    Args:
        run: `<runs>/<run>`; its checkpoint is used where none is given.
        init: 'checkpoint', 'random' or 'teacher'.
        recipe_name: gives the network of a random start, or the teacher.
        checkpoint: another checkpoint file: ours, or a published one (see train.weights).

    Raises:
        UserError: no checkpoint, or not a pretraining's.
    """
    if init == "random":
        recipe = load_recipe(recipe_name)
        return Start(recipe.network, recipe.voxels, "random")
    if init == "teacher":
        recipe = load_recipe(recipe_name)
        return Start(recipe.network, recipe.voxels, f"{recipe.name}/teacher", teacher=recipe)
    path = checkpoint or run / CHECKPOINT
    found = sha256_file(path)[:16] if path.is_file() else ""  # a missing one is named below
    weights = read_weights(path)
    return Start(
        weights.network,
        weights.voxels,
        weights.init,
        weights.epochs,
        path,
        intensity=weights.intensity,
        hash=found,
    )


def load_network(start: Start, machine: Machine, seed: int) -> MinkUNet:
    """Return the network of a start; random weights are drawn from the seed.

    Raises:
        UserError: the checkpoint was replaced since the start was found.
    """
    torch.manual_seed(seed)
    network = make_network(start.network, machine.engine)
    if start.checkpoint:
        check(
            sha256_file(start.checkpoint)[:16] == start.hash,
            f"{start.checkpoint}: must stay as it is while it is measured, got another file; wait "
            "until the pretraining is over, then measure again",
        )
        load_into(network, read_weights(start.checkpoint).state, str(start.checkpoint))
    return network

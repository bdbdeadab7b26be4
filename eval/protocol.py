"""Run a downstream protocol on a checkpoint (or on random weights) and write its result file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from eval.probes.table import PROBES
from eval.results import Result, write_result
from pipeline.config import override, to_plain
from pipeline.errors import UserError, check
from pipeline.files import sha256
from train.checkpoint import load_checkpoint, load_into, save_checkpoint
from train.evaluate import evaluate
from train.finetune import train_downstream
from train.metrics import scores
from train.models.minkunet import MinkUNet
from train.recipes import Network, load_recipe
from train.rows import choose_rows
from train.run_folder import CHECKPOINT
from train.stores import Stores
from train.trainer import Machine, make_network
from train.voxelize import VoxelConfig

VALIDATION = "val"
C = TypeVar("C")


@dataclass(frozen=True)
class Start:
    """What the network starts from."""

    network: Network
    voxels: VoxelConfig
    init: str  # '<recipe>/<source>' or 'random'
    epochs: int = 0  # of pretraining
    checkpoint: Path | None = None


def find_start(run: Path, init: str, recipe_name: str, checkpoint: Path | None) -> Start:
    """Return what a downstream run starts from.

    Args:
        run: `<runs>/<run>`; its checkpoint is used where none is given.
        init: 'checkpoint' or 'random'.
        recipe_name: gives the network of a random start.
        checkpoint: another checkpoint file.

    Raises:
        UserError: no checkpoint, or not a pretraining's.
    """
    if init == "random":
        recipe = load_recipe(recipe_name)
        return Start(recipe.network, recipe.voxels, "random")
    path = checkpoint or run / CHECKPOINT
    content = load_checkpoint(path, "network", "facts", "next_epoch")
    facts = content["facts"]
    network, voxels = _rebuild(Network(), facts["recipe"]["network"], path), VoxelConfig()
    voxels = _rebuild(voxels, facts["recipe"]["voxels"], path)
    name = f"{facts['recipe']['name']}/{facts['source']}"
    return Start(network, voxels, name, content["next_epoch"], path)


def run_protocol(
    run: Path,
    stores: Stores,
    protocol: str,
    split: str,
    start: Start,
    settings: tuple[str, ...],
    seeds: tuple[int, ...],
    machine: Machine,
) -> tuple[Result, Path]:
    """Train on a split, evaluate on the validation frames, write the result file.

    Raises:
        UserError: unknown protocol or key, an empty split, a checkpoint of another network, or
            validation frames without a labeled point.
    """
    index, attributes = stores.index, stores.store("frames").attributes
    base = PROBES.load(protocol).settings(index.dataset, start.init == "random")
    config = override(base, settings)
    rows = choose_rows(stores, split, ("frames",))
    val_rows = choose_rows(stores, VALIDATION, ("frames",))
    classes = tuple(attributes["classes"])
    matrices = []
    for seed in seeds:
        network = load_network(start, machine, seed)
        seeded, grid = replace(config, seed=seed), start.voxels
        train_downstream(network, stores, rows, len(classes), grid, seeded, machine.device)
        matrices.append(evaluate(network, stores, val_rows, len(classes), grid, machine.device))
    check(
        bool(matrices[-1].any()),
        f"{stores.paths.folder}: split '{VALIDATION}' must have labeled points, got none; "
        "use a version of the data set that has labels there",
    )
    found = [scores(matrix, attributes["metric"]) for matrix in matrices]
    result = Result(
        protocol=protocol,
        dataset=index.dataset,
        place=stores.paths.folder.resolve().name,
        split=split,
        split_hash=sha256(rows.astype("<i8").tobytes())[:16],
        init=start.init,
        init_epochs=start.epochs,
        miou=tuple(score.miou for score in found),
        per_class_iou=tuple(score.per_class_iou for score in found),
        classes=classes,
        num_absent=found[-1].num_absent,
        convention=attributes["metric"],
        seeds=seeds,
        confusion=tuple(tuple(line) for line in matrices[-1].tolist()),
        num_train=len(rows),
        num_val=len(val_rows),
        config=to_plain(config),
        backbone=describe(network),
        engine=machine.engine,
        features="intensity",
        voxels=to_plain(start.voxels),
        stores=stores.hashes(("frames",)) | {"label_map": attributes["label_map_hash"]},
    )
    _save_predictor(run, result, network, start.network)
    return result, write_result(run, result)


def load_network(start: Start, machine: Machine, seed: int) -> MinkUNet:
    """Return the network of a start; random weights are drawn from the seed."""
    torch.manual_seed(seed)
    network = make_network(start.network, machine.engine)
    if start.checkpoint:
        state = load_checkpoint(start.checkpoint, "network")["network"]
        load_into(network, state, str(start.checkpoint))
    return network


def describe(network: MinkUNet) -> str:
    """Return the network's name and size."""
    count = sum(p.numel() for p in network.parameters())
    return f"MinkUNet, {count:,} parameters"


def _save_predictor(run: Path, result: Result, network: MinkUNet, config: Network) -> None:
    """Keep the last seed's trained network, for pictures of its predictions."""
    settings = _assignments(to_plain(replace(config, out_channels=network.out_channels)))
    content = {"network": network.state_dict(), "network_settings": settings}
    save_checkpoint(run / "results" / f"{result.name}.pt", content)


def _rebuild(config: C, plain: dict[str, Any], path: Path) -> C:
    """Return a config dataclass from its plain form in a checkpoint."""
    try:
        return override(config, _assignments(plain))
    except UserError as error:
        raise UserError(
            f"{path}: checkpoint must hold settings that this code knows, got {error}; train again"
        ) from error


def _assignments(plain: dict[str, Any]) -> list[str]:
    """Return plain fields as the 'key=value' lines that override takes."""
    return [
        f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in plain.items()
    ]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return '0,1,2' as numbers.

    Raises:
        UserError: not numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    check(all(p.isdecimal() for p in parts), f"--seeds: must be numbers, got '{text}'; like 0,1,2")
    return tuple(int(part) for part in parts)

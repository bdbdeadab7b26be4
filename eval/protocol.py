"""Run a downstream protocol on a checkpoint (or on random weights) and write its result file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from eval.probes.table import PROBES
from eval.results import Result, write_result
from pipeline.config import override, to_plain
from pipeline.errors import UserError, check
from pipeline.files import sha256
from train.checkpoint import load_checkpoint, load_into, save_checkpoint
from train.finetune import evaluate, train_downstream
from train.metrics import scores
from train.models.minkunet import MinkUNet
from train.recipes import Network, Recipe, load_recipe
from train.run_folder import CHECKPOINT
from train.stores import Stores
from train.trainer import Machine, choose_rows, make_network

VALIDATION = "val"


@dataclass(frozen=True)
class Start:
    """What the network starts from."""

    recipe: Recipe  # its network and voxels
    init: str  # '<recipe>/<source>' or 'random'
    checkpoint: Path | None


def find_start(run: Path, init: str, recipe_name: str, checkpoint: Path | None) -> Start:
    """Return what a downstream run starts from.

    Args:
        run: `<runs>/<run>`; its checkpoint is used where none is given.
        init: 'checkpoint' or 'random'.
        recipe_name: gives the network of a random start.
        checkpoint: another checkpoint file.

    Raises:
        UserError: no checkpoint, or one of an unknown recipe.
    """
    if init == "random":
        return Start(load_recipe(recipe_name), "random", None)
    path = checkpoint or run / CHECKPOINT
    facts = load_checkpoint(path)["facts"]
    recipe = _recipe_of(facts["recipe"], path)
    return Start(recipe, f"{facts['recipe']['name']}/{facts['source']}", path)


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
        UserError: unknown protocol or key, an empty split, or a checkpoint of another network.
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
        seeded = replace(config, seed=seed)
        grid = start.recipe.voxels
        train_downstream(network, stores, rows, len(classes), grid, seeded, machine.device)
        matrices.append(evaluate(network, stores, val_rows, len(classes), grid, machine.device))
        _save_predictor(run, protocol, network, start.recipe.network, len(classes))
    found = [scores(matrix, attributes["metric"]) for matrix in matrices]
    result = Result(
        protocol=protocol,
        dataset=index.dataset,
        split=split,
        split_hash=sha256(rows.astype("<i8").tobytes())[:16],
        init=start.init,
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
        voxels=to_plain(start.recipe.voxels),
        stores=stores.hashes(("frames",)) | {"label_map": attributes["label_map_hash"]},
    )
    return result, write_result(run, result)


def load_network(start: Start, machine: Machine, seed: int) -> MinkUNet:
    """Return the network of a start; random weights are drawn from the seed."""
    torch.manual_seed(seed)
    network = make_network(start.recipe.network, machine.engine)
    if start.checkpoint:
        state = load_checkpoint(start.checkpoint)["network"]
        load_into(network, state, str(start.checkpoint))
    return network


def describe(network: MinkUNet) -> str:
    """Return the network's name and size."""
    count = sum(p.numel() for p in network.parameters())
    return f"MinkUNet, {count:,} parameters"


def _save_predictor(
    run: Path, protocol: str, network: MinkUNet, config: Network, num_classes: int
) -> None:
    """Keep the last seed's trained network, for pictures of its predictions."""
    settings = _assignments(to_plain(replace(config, out_channels=num_classes)))
    content = {"network": network.state_dict(), "network_settings": settings}
    save_checkpoint(run / "results" / f"{protocol}.pt", content)


def _recipe_of(plain: dict[str, Any], path: Path) -> Recipe:
    """Rebuild the parts of a recipe that the network needs."""
    try:
        recipe = load_recipe(plain["name"])
    except (KeyError, UserError) as error:
        raise UserError(f"{path}: must name a known recipe, got {error}; train again") from error
    parts = [_assignments(plain[part], f"{part}.") for part in ("network", "voxels")]
    return override(recipe, [line for part in parts for line in part])


def _assignments(plain: dict[str, Any], prefix: str = "") -> list[str]:
    """Return plain fields as the 'key=value' lines that override takes."""
    return [
        f"{prefix}{key}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in plain.items()
    ]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return '0,1,2' as numbers.

    Raises:
        UserError: not numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    check(all(p.isdigit() for p in parts), f"--seeds: must be numbers, got '{text}'; like 0,1,2")
    return tuple(int(part) for part in parts)

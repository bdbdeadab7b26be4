"""PAGE TWO: batch -> encode -> losses -> step -> log -> save. Order only, no maths."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from pipeline.config import differences, to_plain
from pipeline.errors import UserError, check
from pipeline.files import sha256
from pipeline.progress import Progress
from train.batch import Batch, Clouds
from train.checkpoint import load_checkpoint, load_into, save_checkpoint
from train.contrast import Term
from train.encoded import Encoded
from train.loader import mixed_batches, num_batches, pretrain_stages
from train.losses.table import LOSSES
from train.mixture import Part, check_mixture
from train.models.image_teacher import ImageHead, ImageTeacher, make_teacher
from train.models.minkunet import MinkUNet, minkunet
from train.optimizer import make_optimizer, rate
from train.recipes import Network, Recipe, find_weights
from train.rows import choose_pairs
from train.run_folder import CHECKPOINT, append_metrics, claim, forget_after
from train.stores import StorePaths, Stores


@dataclass(frozen=True)
class Machine:
    """Facts of the machine, no part of a run's config."""

    engine: str
    device: str = "cpu"
    num_workers: int = 0


def make_network(config: Network, engine: str) -> MinkUNet:
    """Return a recipe's 3D network with fresh weights from torch's generator."""
    return minkunet(
        config.in_channels,
        config.out_channels,
        widths=config.widths,
        depths=config.depths,
        engine=engine,
        bn_momentum=config.bn_momentum,
        block_bn_momentum=config.block_bn_momentum,
    )


def load_teacher(recipe: Recipe) -> tuple[ImageTeacher, str]:
    """Return a recipe's frozen teacher, and a hash of its weights file ('' without one).

    Raises:
        UserError: the recipe leaves the weights to the user, or they are missing or do not fit.
    """
    config = recipe.teacher
    check(
        config.weights != "",
        f"recipe '{recipe.name}': teacher.weights must be a checkpoint file of a {config.kind}, "
        "got none; give --set teacher.weights=FILE ('none' for random weights, a control)",
    )
    if config.weights is None:
        return make_teacher(config), ""
    path = find_weights(config.weights)
    teacher = make_teacher(replace(config, weights=str(path)))
    return teacher, sha256(path.read_bytes())[:16]


def pretrain(
    folder: Path, paths: StorePaths | tuple[StorePaths, ...], recipe: Recipe, machine: Machine
) -> Path:
    """Run (or resume, or find finished) a pretraining and return its checkpoint.

    Args:
        folder: `<runs>/<run>`.
        paths: the data set's stores, or several data sets'.
        recipe: the complete config.
        machine: engine, device, workers.

    Raises:
        UserError: stores that lack what the recipe reads, an empty split, data sets that do not go
            together, or another run's folder.
    """
    parts, data = choose_parts(paths if isinstance(paths, tuple) else (paths,), recipe)
    training = Training(recipe, machine)
    facts = {"recipe": to_plain(recipe), "teacher_hash": training.teacher_hash, **data}
    claim(folder, facts)
    checkpoint = folder / CHECKPOINT
    first_epoch = training.resume(checkpoint, facts) if checkpoint.exists() else 0
    if first_epoch >= recipe.epochs:
        return checkpoint
    forget_after(folder, first_epoch)
    total = num_batches(data["num_frames"], recipe.batch_size)
    progress = Progress("pretrain", (recipe.epochs - first_epoch) * total, "steps")
    with SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch * total) as writer:
        for epoch in range(first_epoch, recipe.epochs):
            training.start_epoch(epoch)
            batches = mixed_batches(parts, recipe, epoch, machine.num_workers)
            for step, batch in enumerate(batches, start=epoch * total):
                training.set_rate(step / total)
                values = training.step(batch.to(machine.device))
                line = {"epoch": epoch, "step": step, "lr": training.lr, **values}
                append_metrics(folder, line | {"fallbacks": batch.num_fallbacks})
                for name, value in values.items():
                    writer.add_scalar(f"pretrain/{name}", value, step)
                progress.advance(1, " ".join(f"{n} {v:.3f}" for n, v in values.items()))
            training.save(checkpoint, epoch + 1, facts, machine.engine)
    progress.close()
    return checkpoint


def choose_parts(
    places: tuple[StorePaths, ...], recipe: Recipe
) -> tuple[tuple[Part, ...], dict[str, Any]]:
    """Return what a run trains on, and the facts about it that decide the run's result.

    Raises:
        UserError: as `pretrain`.
    """
    stages = pretrain_stages(recipe)
    opened = [Stores(paths) for paths in places]
    needs_successor = "successor" in recipe.losses.reads
    rows = [choose_pairs(each, recipe.split, stages, needs_successor) for each in opened]
    check_mixture(opened, recipe.dataset_weights)
    single = len(opened) == 1
    hashes: dict[str, str] = {}
    for each in opened:
        prefix = "" if single else f"{each.paths.folder.name}/"
        hashes |= {prefix + name: value for name, value in each.hashes(stages).items()}
    facts = {
        "dataset": "+".join(each.index.dataset for each in opened),
        "source": places[0].source,
        "stores": hashes,
        "num_frames": sum(map(len, rows)),
        "rows_hash": sha256(np.concatenate(rows).astype("<i8").tobytes())[:16],
    }
    if places[0].intensity != "slidr":  # absent = slidr, so that runs from before it go on
        facts["intensity"] = places[0].intensity
    return tuple(Part(paths, each) for paths, each in zip(places, rows, strict=True)), facts


class Training:
    """Networks, optimizer and random state of one run."""

    def __init__(self, recipe: Recipe, machine: Machine) -> None:
        self.recipe, self.machine = recipe, machine
        torch.manual_seed(recipe.seed)
        self.network = make_network(recipe.network, machine.engine).to(machine.device)
        teacher, self.teacher_hash = load_teacher(recipe)
        self.teacher: ImageTeacher = teacher.to(machine.device)
        width = recipe.network.out_channels
        check(
            "cosine" not in recipe.losses.weights or width == self.teacher.dim,
            f"recipe '{recipe.name}': network.out_channels must be the teacher's "
            f"{self.teacher.dim} for the cosine loss, got {width}; set it to that",
        )
        self.head = ImageHead(self.teacher.dim, recipe.network.out_channels).to(machine.device)
        parameters = [*self.network.parameters(), *self.head.parameters()]
        self.optimizer = make_optimizer(parameters, recipe.optimizer)
        self.generator = torch.Generator().manual_seed(recipe.seed)

    @property
    def lr(self) -> float:
        """The learning rate of this step."""
        return self.optimizer.param_groups[0]["lr"]

    def start_epoch(self, epoch: int) -> None:
        """Set the learning rate and the mode of the network."""
        self.set_rate(epoch)
        self.network.train()

    def set_rate(self, position: float) -> None:
        """Set the learning rate of a position of the run, in epochs."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.recipe.optimizer, position, self.recipe.epochs)

    def step(self, batch: Batch) -> dict[str, float]:
        """Take one optimization step; return the total loss and the parts that had something."""
        terms, weights = self.losses(batch), self.recipe.losses.weights
        total = sum(weights[name] * term.value for name, term in terms.items())
        if not torch.isfinite(total):
            raise UserError(
                f"recipe '{self.recipe.name}': the loss must be finite, got {total.item()}; "
                "lower optimizer.lr"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        parts = {name: term.value.item() for name, term in terms.items() if term.num_contrasted}
        return {"loss": total.item(), **parts}

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Return the losses of a batch, unweighted."""
        encoded, config = self.encode_batch(batch), self.recipe.losses
        return {n: LOSSES.load(n).of_batch(encoded, getattr(config, n)) for n in config.weights}

    def encode_batch(self, batch: Batch) -> Encoded:
        """Return the batch with its features; images only where a loss reads them."""
        points = tuple(self.encode(clouds) for clouds in batch.frames)
        if "images" not in self.recipe.losses.reads:
            return Encoded(batch, points, None, None, self.generator)
        teacher_map = self.teacher(batch.images.float() / 255)
        return Encoded(batch, points, teacher_map, self.head(teacher_map), self.generator)

    def encode(self, clouds: Clouds) -> Tensor:
        """Return normalized point features [V, D] of a time step's voxels (head Q's output)."""
        return F.normalize(self.network(clouds.features, clouds.coordinates), dim=1)

    def save(self, path: Path, next_epoch: int, facts: dict[str, Any], engine: str) -> None:
        """Write everything that resuming needs."""
        content = {
            "network": self.network.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "next_epoch": next_epoch,
            "facts": facts,
            "engine": engine,
        }
        save_checkpoint(path, content)

    def resume(self, path: Path, facts: dict[str, Any]) -> int:
        """Load a checkpoint of the same run and return the epoch to go on with."""
        needed = ("network", "head", "optimizer", "generator", "next_epoch", "facts")
        content = load_checkpoint(path, *needed)
        changes = differences(content["facts"], facts)
        check(
            not changes,
            f"{path}: checkpoint must be of this run, got one of another config "
            f"({'; '.join(changes[:4])}); choose another RUN=, or remove the file",
        )
        modules: dict[str, nn.Module] = {"network": self.network, "head": self.head}
        for name, module in modules.items():
            load_into(module, content[name], f"{path} ({name})")
        self.optimizer.load_state_dict(content["optimizer"])
        self.generator.set_state(content["generator"])
        return content["next_epoch"]


def set_threads() -> None:
    """Give torch every core; OMP_NUM_THREADS=1 (set by __main__) is for MinkowskiEngine's maps."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))

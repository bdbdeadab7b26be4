"""PAGE TWO: batch -> encode -> losses -> step -> log -> save. Order only, no maths."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from train.contrast import Term, nothing
from train.loader import epoch_batches, num_batches, pretrain_stages
from train.losses import point_to_segment, superpixel_nce, temporal_nce
from train.models.image_teacher import ImageHead, ImageTeacher, make_teacher
from train.models.minkunet import MinkUNet, minkunet
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


def pretrain(folder: Path, paths: StorePaths, recipe: Recipe, machine: Machine) -> Path:
    """Run (or resume, or find finished) a pretraining and return its checkpoint.

    Args:
        folder: `<runs>/<run>`.
        paths: the data set's stores.
        recipe: the complete config.
        machine: engine, device, workers.

    Raises:
        UserError: stores that lack what the recipe reads, an empty split, or another run's folder.
    """
    stores, stages = Stores(paths), pretrain_stages(recipe)
    rows = choose_pairs(stores, recipe.split, stages, bool(recipe.losses.temporal_weight))
    training = Training(recipe, machine)
    facts = {
        "recipe": to_plain(recipe),
        "teacher_hash": training.teacher_hash,
        "dataset": stores.index.dataset,
        "source": paths.source,
        "stores": stores.hashes(stages),
        "num_frames": len(rows),
        "rows_hash": sha256(rows.astype("<i8").tobytes())[:16],
    }
    claim(folder, facts)
    checkpoint = folder / CHECKPOINT
    first_epoch = training.resume(checkpoint, facts) if checkpoint.exists() else 0
    if first_epoch >= recipe.epochs:
        return checkpoint
    forget_after(folder, first_epoch)
    total = num_batches(len(rows), recipe.batch_size)
    progress = Progress("pretrain", (recipe.epochs - first_epoch) * total, "steps")
    with SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch * total) as writer:
        for epoch in range(first_epoch, recipe.epochs):
            training.start_epoch(epoch)
            batches = epoch_batches(paths, recipe, rows, epoch, machine.num_workers)
            for step, batch in enumerate(batches, start=epoch * total):
                values = training.step(batch.to(machine.device))
                line = {"epoch": epoch, "step": step, "lr": training.lr, **values}
                append_metrics(folder, line | {"fallbacks": batch.num_fallbacks})
                for name, value in values.items():
                    writer.add_scalar(f"pretrain/{name}", value, step)
                progress.advance(1, " ".join(f"{n} {v:.3f}" for n, v in values.items()))
            training.save(checkpoint, epoch + 1, facts, machine.engine)
    progress.close()
    return checkpoint


class Training:
    """Networks, optimizer and random state of one run."""

    def __init__(self, recipe: Recipe, machine: Machine) -> None:
        self.recipe, self.machine = recipe, machine
        torch.manual_seed(recipe.seed)
        self.network = make_network(recipe.network, machine.engine).to(machine.device)
        teacher, self.teacher_hash = load_teacher(recipe)
        self.teacher: ImageTeacher = teacher.to(machine.device)
        self.head = ImageHead(self.teacher.dim, recipe.network.out_channels).to(machine.device)
        options = recipe.optimizer
        self.optimizer = torch.optim.SGD(
            [*self.network.parameters(), *self.head.parameters()],
            lr=options.lr,
            momentum=options.momentum,
            dampening=options.dampening,
            weight_decay=options.weight_decay,
        )
        self.generator = torch.Generator().manual_seed(recipe.seed)

    @property
    def lr(self) -> float:
        """The learning rate of this epoch."""
        return self.optimizer.param_groups[0]["lr"]

    def start_epoch(self, epoch: int) -> None:
        """Set the learning rate: a cosine to 0, stepped once per epoch (method.md 5.1)."""
        lr = self.recipe.optimizer.lr * (1 + math.cos(math.pi * epoch / self.recipe.epochs)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()

    def step(self, batch: Batch) -> dict[str, float]:
        """Take one optimization step; return the total loss and the parts that had something."""
        terms, weights = self.losses(batch), self.weights()
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

    def weights(self) -> dict[str, float]:
        """Return the weights of the losses that take part."""
        losses = self.recipe.losses
        weights = {
            "superpixel_nce": losses.superpixel_weight,
            "temporal_nce": losses.temporal_weight,
            "point_to_segment": losses.segment_weight,
        }
        return {name: weight for name, weight in weights.items() if weight}

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Return the losses of a batch, unweighted."""
        config, active = self.recipe.losses, self.weights()
        features = [self.encode(clouds) for clouds in batch.frames]
        now, terms = batch.frames[0], {}
        if "superpixel_nce" in active:
            feature_map = self.head(self.teacher(batch.images.float() / 255))
            terms["superpixel_nce"] = superpixel_nce.loss(
                features[0],
                feature_map,
                batch.ids,
                batch.pair_voxel,
                batch.pair_image,
                batch.pair_row,
                batch.pair_col,
                config.superpixel_nce,
            )
        if "temporal_nce" in active and len(batch.frames) < 2:
            terms["temporal_nce"] = nothing(features[0])  # no sample here has a successor
        elif "temporal_nce" in active:
            later = batch.frames[1]
            terms["temporal_nce"] = temporal_nce.loss(
                features[0],
                now.rows,
                now.segment,
                features[1],
                later.rows,
                later.segment,
                batch.num_segments,
                self.generator,
                config.temporal_nce,
            )
        if "point_to_segment" in active:
            terms["point_to_segment"] = point_to_segment.loss(
                features[0], now.rows, now.segment, batch.num_segments, config.point_to_segment
            )
        return terms

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

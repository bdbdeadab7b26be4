"""PAGE TWO: batch -> encode -> losses -> step -> log -> save. Order only, no maths."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from pipeline.config import to_plain
from pipeline.errors import UserError, check
from pipeline.progress import Progress
from train.batch import Batch, Clouds
from train.checkpoint import load_checkpoint, load_into, save_checkpoint
from train.contrast import Term
from train.loader import epoch_batches, num_batches, pretrain_stages
from train.losses import point_to_segment, superpixel_nce, temporal_nce
from train.models.image_teacher import ImageHead, ImageTeacher, make_teacher
from train.models.minkunet import MinkUNet, minkunet
from train.recipes import Network, Recipe
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
    rows = choose_rows(stores, recipe.split, stages)
    facts = {
        "recipe": to_plain(recipe),
        "dataset": stores.index.dataset,
        "source": paths.source,
        "stores": stores.hashes(stages),
        "num_frames": len(rows),
    }
    claim(folder, facts)
    checkpoint = folder / CHECKPOINT
    training = Training(recipe, machine)
    first_epoch = training.resume(checkpoint) if checkpoint.exists() else 0
    if first_epoch >= recipe.epochs:
        return checkpoint
    forget_after(folder, first_epoch)
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch)
    total = num_batches(len(rows), recipe.batch_size)
    progress = Progress("pretrain", (recipe.epochs - first_epoch) * total, "steps")
    for epoch in range(first_epoch, recipe.epochs):
        training.start_epoch(epoch)
        for step, batch in enumerate(
            epoch_batches(paths, recipe, rows, epoch, machine.num_workers)
        ):
            values = training.step(batch.to(machine.device))
            line = {"epoch": epoch, "step": epoch * total + step, "lr": training.lr, **values}
            append_metrics(folder, line)
            for name, value in values.items():
                writer.add_scalar(f"pretrain/{name}", value, line["step"])
            progress.advance(1, " ".join(f"{n} {v:.3f}" for n, v in values.items()))
        training.save(checkpoint, epoch + 1, {**facts, "engine": machine.engine})
    writer.close()
    progress.close()
    return checkpoint


def choose_rows(stores: Stores, split: str, stages: tuple[str, ...]) -> Any:
    """Return the usable rows of a split, saying what was left out.

    Raises:
        UserError: the split is empty (names the smallest that is not), or a stage is missing.
    """
    index = stores.index
    name = split or ("slidr_train" if "slidr_train" in index.splits else "train")
    rows = index.split_mask(name).nonzero()[0]
    if not len(rows):
        sizes = {other: int(index.split_mask(other).sum()) for other in index.splits}
        usable = sorted((count, other) for other, count in sizes.items() if count)
        hint = (
            f"the smallest usable one is '{usable[0][1]}' ({usable[0][0]} frames)" if usable else ""
        )
        raise UserError(
            f"{stores.paths.folder}: split '{name}' must hold frames, got none; "
            f"{hint or 'no other split has any'}"
        )
    rows, left_out = stores.usable_rows(rows, stages)
    if left_out:
        print(f"{len(left_out)} of {len(rows) + len(left_out)} frames left out: {left_out[0]}")
    return rows


class Training:
    """Networks, optimizer and random state of one run."""

    def __init__(self, recipe: Recipe, machine: Machine) -> None:
        self.recipe, self.machine = recipe, machine
        check(
            recipe.teacher.weights != "",
            f"recipe '{recipe.name}': teacher.weights must be a checkpoint file of a "
            f"{recipe.teacher.kind}, got none; add --set teacher.weights=FILE "
            "(or 'none' for random weights, a control)",
        )
        torch.manual_seed(recipe.seed)
        self.network = make_network(recipe.network, machine.engine).to(machine.device)
        self.teacher: ImageTeacher = make_teacher(recipe.teacher).to(machine.device)
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
        """Take one optimization step and return the total loss and its parts."""
        terms = self.losses(batch)
        weights = self.weights()
        total = sum(weights[name] * term.value for name, term in terms.items())
        if not torch.isfinite(total):
            raise UserError(
                f"recipe '{self.recipe.name}': the loss must be finite, got {total.item()}; "
                "lower optimizer.lr"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        return {"loss": total.item()} | {name: term.value.item() for name, term in terms.items()}

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
        if "temporal_nce" in active and len(batch.frames) > 1:
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

    def save(self, path: Path, next_epoch: int, facts: dict[str, Any]) -> None:
        """Write everything that resuming needs."""
        content = {
            "network": self.network.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "next_epoch": next_epoch,
            "facts": facts,
        }
        save_checkpoint(path, content)

    def resume(self, path: Path) -> int:
        """Load a checkpoint and return the epoch to go on with."""
        content = load_checkpoint(path)
        modules: dict[str, nn.Module] = {"network": self.network, "head": self.head}
        for name, module in modules.items():
            load_into(module, content[name], f"{path} ({name})")
        self.optimizer.load_state_dict(content["optimizer"])
        self.generator.set_state(content["generator"])
        return content["next_epoch"]


def set_threads() -> None:
    """Give torch every core; OMP_NUM_THREADS=1 (set by __main__) is for MinkowskiEngine's maps."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))

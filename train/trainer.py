"""PAGE TWO: batch -> encode -> losses -> step -> log -> save. Order only, no maths.

A run's position is the number of batches it has consumed; everything else follows from that.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config import differences, to_plain
from pipeline.errors import check
from pipeline.files import sha256
from train.batch import Batch
from train.checkpoint import load_latest, save_in_turn
from train.knn import look
from train.loader import num_batches, pretrain_stages, run_batches
from train.mixture import Part, check_mixture
from train.parallel import Team, join_team
from train.recipes import Recipe
from train.rows import choose_pairs
from train.run_folder import CHECKPOINT, claim, forget_after, write_down_batch
from train.run_log import RunLog
from train.stop import Stopped, stop_requests
from train.stores import StorePaths, Stores
from train.training import Machine, NotFinite, Training, load_teacher, make_network

__all__ = ["Machine", "Training", "load_teacher", "make_network", "pretrain", "set_threads"]


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
            together, another run's folder, or a loss that is not finite.
        Stopped: SIGTERM came; the run is saved.
    """
    places = paths if isinstance(paths, tuple) else (paths,)
    with join_team(machine.device) as (team, device), stop_requests() as stop:
        run = Run(folder, places, recipe, replace(machine, device=device), team)
        if run.step < run.last_step:
            run.train(stop)
    return run.checkpoint


class Run:
    """One process's part of a pretraining, from where it stands to its end."""

    def __init__(
        self,
        folder: Path,
        places: tuple[StorePaths, ...],
        recipe: Recipe,
        machine: Machine,
        team: Team,
    ) -> None:
        self.folder, self.recipe, self.machine, self.team = folder, recipe, machine, team
        self.parts, data = choose_parts(places, recipe)
        self.epoch_steps = count_steps(data["num_frames"], recipe, team)
        self.last_step = recipe.epochs * self.epoch_steps
        self.training = Training(recipe, machine, team)
        hashes = {"teacher_hash": self.training.teacher_hash}
        self.facts = {"recipe": to_plain(recipe), **hashes, **data, **team.facts}
        self.checkpoint = folder / CHECKPOINT
        if team.is_first:
            claim(folder, self.facts)
        team.wait()
        self.step = self.resume()

    def train(self, stop: Callable[[], bool]) -> None:
        """Take every step that is left; log each, save now and then.

        Args:
            stop: whether to stop after this step.

        Raises:
            UserError: a store lacks a frame, or a loss is not finite.
            Stopped: `stop` said so; the run is saved.
        """
        if self.team.is_first:
            forget_after(self.folder, self.step // self.epoch_steps, self.step)
        is_cuda = self.machine.device.startswith("cuda")
        batches = run_batches(
            self.parts, self.recipe, self.step, self.machine.num_workers, self.team, is_cuda
        )
        before = None
        with RunLog(self.folder, self.team, self.step, self.last_step) as log:
            for batch in log.timed(batches):
                epoch = self.step // self.epoch_steps
                self.training.start_epoch(self.step / self.epoch_steps)
                try:
                    values = self.training.step(batch.to(self.machine.device))
                except NotFinite as error:
                    self.write_down(error, epoch, batch, before)
                    raise
                log.step(epoch, self.step, self.training.lr, batch, values)
                self.step, before = self.step + 1, batch
                is_over = self.step % self.epoch_steps == 0
                if is_over and self.wants_look(epoch + 1):
                    log.look(self.step, look(self.training, self.parts[0].paths))
                stopped = self.team.any(stop())
                if is_over or stopped or self.step % self.machine.save_every == 0:
                    self.save()
                if stopped and self.step < self.last_step:
                    raise Stopped(f"{self.folder}: stopped and saved after step {self.step}")

    def wants_look(self, epochs_done: int) -> bool:
        """Return whether this process takes a quick look at what was learned."""
        every = self.machine.knn_every
        return self.team.is_first and every > 0 and epochs_done % every == 0

    def write_down(self, error: NotFinite, epoch: int, batch: Batch, before: Batch | None) -> None:
        """Write which frames a batch was made of whose loss is not finite, and those before it."""
        names = [part.paths.folder.name for part in self.parts]
        frames = [
            [{"dataset": names[part], "frame": row} for part, row in each.rows]
            for each in (batch, before)
            if each is not None
        ]
        facts = {"step": self.step, "epoch": epoch, "lr": self.training.lr, "error": str(error)}
        write_down_batch(
            self.folder, self.team.rank, {**facts, "frames": frames[0], "before": frames[1:]}
        )

    def save(self) -> None:
        """Write everything that resuming needs; the last three are kept."""
        content = {
            **self.training.state(),
            "step": self.step,
            "next_epoch": self.step // self.epoch_steps,
            "facts": self.facts,
            "engine": self.machine.engine,
        }
        if self.team.is_first:
            save_in_turn(self.checkpoint, content)
        self.team.wait()

    def resume(self) -> int:
        """Load the newest checkpoint of this run, if there is one; return the steps done."""
        needed = ("network", "head", "optimizer", "generator", "next_epoch", "facts")
        found = load_latest(self.checkpoint, *needed)
        if found is None:
            return 0
        content, path = found
        changes = differences(content["facts"], self.facts)
        check(
            not changes,
            f"{path}: checkpoint must be of this run, got one of another config "
            f"({'; '.join(changes[:4])}); choose another RUN=, or remove the file",
        )
        self.training.load(content, str(path))
        return content.get("step", content["next_epoch"] * self.epoch_steps)


def count_steps(num_frames: int, recipe: Recipe, team: Team) -> int:
    """Return the steps of an epoch.

    Raises:
        UserError: frames or batch cannot be shared among the processes.
    """
    check(
        recipe.batch_size % team.size == 0,
        f"batch_size: must be a multiple of the {team.size} processes, got {recipe.batch_size}; "
        "it counts the frames of all of them together",
    )
    steps = num_batches(num_frames, recipe.batch_size, team.size)
    check(
        steps > 0,
        f"split: must have a frame per process, got {num_frames} for {team.size}; start fewer",
    )
    return steps


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
        "source": places[0].source if "superpixels" in stages else "",
        "stores": hashes,
        "num_frames": sum(map(len, rows)),
        "rows_hash": sha256(np.concatenate(rows).astype("<i8").tobytes())[:16],
    }
    if places[0].intensity != "slidr":  # absent = slidr, so that runs from before it go on
        facts["intensity"] = places[0].intensity
    return tuple(Part(paths, each) for paths, each in zip(places, rows, strict=True)), facts


def set_threads() -> None:
    """Give torch every core; OMP_NUM_THREADS=1 (set by __main__) is for MinkowskiEngine's maps.

    Processes that torchrun started on one machine share its cores.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // here))

"""Where the time of one training step goes, part by part, at full size.

    python -m benchmarks.step [--root FOLDER] [--rounds 3] [--batch 1] [--threads 1]

The real nuScenes keyframe as its own successor (34,688 points, six cameras), Seal's networks with
random weights (MinkUNet34, ResNet-50 at stride 4) and its three losses; coarse cells of space
stand in for geometric segments, since one keyframe has none. On the CPU seconds are processor time.
Ends with the share of all that is neither loader nor network.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline.__main__ import main as stage_one
from pipeline.config import override
from train.batch import collate
from train.encoded import Encoded
from train.engines.table import default_engine
from train.loader import keep_memory, load_sample
from train.losses.table import LOSSES
from train.parallel import ALONE
from train.recipes import load_recipe
from train.run_log import RunLog
from train.stores import StorePaths, Stores
from train.trainer import Machine, Training

CELL_M = 3.0


class OneFrame(Stores):
    """The keyframe as its own successor, cut into cells of space instead of segments."""

    def successor(self, row: int) -> int:
        """Return the row itself."""
        return row

    def segment_ids(self, row: int, which: int, count: int) -> np.ndarray:
        """Return the cell [N] uint16 of each point above the ground, 0 below."""
        points = self.points(row)
        cell = np.floor(points[:, :2] / CELL_M).astype(np.int64)
        _, number = np.unique(cell, axis=0, return_inverse=True)
        return np.where(points[:, 2] > -1.2, number + 1, 0).astype(np.uint16)


class Parts:
    """Seconds by part."""

    def __init__(self, device: str) -> None:
        self.device, self.seconds = device, {}

    def run(self, name: str, work: Callable):
        """Do the work, add its time, return its result."""
        start = self._now()
        found = work()
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start
        return found

    def _now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def one_step(training: Training, stores: Stores, step: int, log: RunLog, size: int) -> Parts:
    """Take one step, its parts apart; the same operations as `Training.step`."""
    recipe, parts = training.recipe, Parts(training.machine.device)
    samples = range(step * size, step * size + size)
    batch = parts.run(
        "loader", lambda: collate([load_sample(stores, recipe, 0, n, 0) for n in samples])
    )
    [batch] = log.timed([batch])
    batch = parts.run("copy to device", lambda: batch.to(training.machine.device))
    points = parts.run("3D network", lambda: tuple(training.encode(c) for c in batch.frames))
    images = batch.images.float() / 255
    teacher_map = parts.run("image teacher", lambda: training.teacher(images))
    feature_map = parts.run("image head", lambda: training.head(teacher_map))
    inputs = [*points, feature_map]
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    encoded = Encoded(batch, tuple(leaves[:-1]), teacher_map, leaves[-1], training.generator)
    weights, total = recipe.losses.weights, 0.0
    for name, weight in weights.items():
        config = getattr(recipe.losses, name)
        term = parts.run(name, lambda n=name, c=config: LOSSES.load(n).of_batch(encoded, c))
        total = total + weight * term.value
    gradients = parts.run("losses backward", lambda: torch.autograd.grad(total, leaves))
    training.optimizer.zero_grad(set_to_none=True)
    parts.run("networks backward", lambda: torch.autograd.backward(inputs, gradients))
    parts.run("optimizer", training.optimizer.step)
    values = {"loss": total.item()}
    parts.run("log", lambda: log.step(0, step, training.lr, batch, values))
    return parts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(os.environ.get("SELKIE_DATA", "../shared/data"))
    parser.add_argument("--root", type=Path, default=data / "nuscenes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if not options.root.is_dir():
        print(f"{options.root}: no nuScenes keyframe there; give --root or set SELKIE_DATA")
        return
    torch.set_num_threads(options.threads)
    keep_memory()
    recipe = override(load_recipe("seal"), ["teacher.weights=none"])
    recipe = replace(recipe, batch_size=options.batch)
    training = Training(recipe, Machine(default_engine(), options.device))
    training.start_epoch(0)
    with tempfile.TemporaryDirectory() as name:
        where = ["--root", str(options.root), "--stores", name]
        stage_one(["run", "--dataset", "nuscenes", *where], standalone_mode=False)
        [folder] = [path for path in Path(name).iterdir() if path.is_dir()]
        stores = OneFrame(StorePaths(folder))
        with RunLog(folder, ALONE, 0, options.rounds + 1) as log:
            steps = [
                one_step(training, stores, n, log, options.batch) for n in range(options.rounds + 1)
            ][1:]
    report([step.seconds for step in steps])


def report(steps: list[dict[str, float]]) -> None:
    """Print the median of each part and the share of what is neither loader nor network."""
    middle = {name: statistics.median(step[name] for step in steps) for name in steps[0]}
    total = sum(middle.values())
    for name, seconds in middle.items():
        print(f"{name:18s} {1000 * seconds:9.1f} ms {seconds / total:7.2%}")
    inside = ("loader", "3D network", "image teacher", "image head", "networks backward")
    outside = total - sum(middle[name] for name in inside)
    print(f"neither loader nor network: {outside / total:.2%} of {total:.2f} s")


if __name__ == "__main__":
    main()

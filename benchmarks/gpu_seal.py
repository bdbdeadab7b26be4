"""The full Seal step on a GPU: two frames, six 224 x 416 images a sample, part by part.

    python -m benchmarks.gpu_seal [--points FILE.bin] [--samples 4 16] [--rounds 10]

The batch is made here once (a real sweep turned and moved, images of noise, superpixels on a grid),
so the loader takes no part. Printed are the share of every part, with the device made to finish
after each; samples a second of the step as it runs in training; the hours of 50 epochs on the
600-scene split at that rate; and the time of the two networks alone, which is to be 90 % of it.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import gpu_timing
from benchmarks.engines import DATA
from pipeline.config import override
from pipeline.errors import UserError, check
from train.batch import Batch, Sample, collate, make_cloud
from train.encoded import Encoded
from train.engines.table import ENGINES
from train.losses.table import LOSSES
from train.models.image_teacher import ImageHead, make_teacher
from train.models.minkunet import minkunet
from train.recipes import Recipe, load_recipe

NUM_IMAGES = 6
CELL_HEIGHT, CELL_WIDTH = 16, 26  # px of a superpixel: 14 x 16 of them on 224 x 416
PAIRS_PER_IMAGE = 3000  # of some 30,000 points, those that a camera sees
TRAIN_SAMPLES = 28130 * 600 // 700  # keyframes of nuScenes' 700 training scenes, share of 600
REAL = ("teacher.weights=none",)  # random weights take the same time
TINY = (*REAL, "augment.height=56", "augment.width=104")
EPOCHS = 50
TARGET = 0.9  # networks' share of the step
CONTESTANTS = (("minkowski", "fp32"), ("native", "fp32"), ("native", "bf16"))


@dataclass
class Step:
    """Networks and optimizer of a step, and its parts in order."""

    recipe: Recipe
    batch: Batch
    engine: str
    format: str
    device: torch.device

    def __post_init__(self) -> None:
        """Make the networks; the teacher's weights are random, which costs the same time."""
        torch.manual_seed(0)
        network = self.recipe.network
        self.network = minkunet(
            network.in_channels,
            network.out_channels,
            widths=network.widths,
            depths=network.depths,
            engine=self.engine,
        ).to(self.device)
        self.teacher = make_teacher(self.recipe.teacher).to(self.device)
        self.head = ImageHead(self.teacher.dim, network.out_channels).to(self.device)
        parameters = [*self.network.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
        self.generator = torch.Generator().manual_seed(0)

    def points(self) -> list[Tensor]:
        """Return the features of both frames."""
        with self._points_format():
            return [
                F.normalize(self.network(each.features, each.coordinates).float(), dim=1)
                for each in self.batch.frames
            ]

    def images(self) -> Tensor:
        """Return the frozen teacher's maps."""
        with gpu_timing.autocast(self.format, self.device):
            return self.teacher(self.batch.images.float() / 255)

    def project(self, teacher_map: Tensor) -> Tensor:
        """Return head K's maps."""
        with gpu_timing.autocast(self.format, self.device):
            return self.head(teacher_map)

    def loss(self, points: list[Tensor], teacher_map: Tensor, feature_map: Tensor) -> Tensor:
        """Return the sum of the recipe's losses."""
        encoded = Encoded(self.batch, tuple(points), teacher_map, feature_map, self.generator)
        losses = self.recipe.losses
        terms = [
            weight * LOSSES.load(name).of_batch(encoded, getattr(losses, name)).value
            for name, weight in losses.weights.items()
        ]
        return torch.stack(terms).sum()

    def update(self) -> None:
        """Take the optimizer's step."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _points_format(self) -> torch.autocast:
        return gpu_timing.autocast(self.format if self.engine == "native" else "fp32", self.device)

    def run(self, after: Callable[[str], None] = lambda part: None) -> None:
        """Take a whole step; `after` is told each part when it was launched."""
        points = self.points()
        after("points forward")
        teacher_map = self.images()
        after("teacher")
        feature_map = self.project(teacher_map)
        after("head")
        total = self.loss(points, teacher_map, feature_map)
        after("losses")
        total.backward()
        after("backward")
        self.update()
        after("optimizer")

    def run_networks(self) -> None:
        """Run only the networks: the teacher, and the 3D network forward and backward."""
        self.images()
        sum(each.mean() for each in self.points()).backward()
        self.optimizer.zero_grad(set_to_none=True)


def make_batch(points: Path, num_samples: int, recipe: Recipe) -> Batch:
    """Return a batch of nuScenes' sizes from one sweep."""
    check(points.is_file(), f"--points {points}: no such file; give a nuScenes .pcd.bin")
    sweep = np.fromfile(points, dtype=np.float32).reshape(-1, 5)[:, :4]
    height, width = recipe.augment.height, recipe.augment.width
    rng = np.random.default_rng(0)
    grid = np.add.outer(
        np.arange(height) // CELL_HEIGHT * (width // CELL_WIDTH + 1), np.arange(width) // CELL_WIDTH
    )
    samples = []
    for number in range(num_samples):
        clouds = [make_cloud(each, _segments(each), recipe.voxels) for each in _frames(sweep, rng)]
        count = NUM_IMAGES * PAIRS_PER_IMAGE
        samples.append(
            Sample(
                row=number,
                clouds=tuple(clouds),
                images=rng.integers(0, 256, (NUM_IMAGES, 3, height, width), dtype=np.uint8),
                ids=np.repeat(grid[None].astype(np.int32) + 1, NUM_IMAGES, 0),
                pair_voxel=rng.integers(0, len(clouds[0].cells), count),
                pair_image=np.repeat(np.arange(NUM_IMAGES), PAIRS_PER_IMAGE),
                pair_row=rng.integers(0, height, count),
                pair_col=rng.integers(0, width, count),
                num_fallbacks=0,
            )
        )
    return collate(samples)


def _frames(sweep: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the sweep turned at random, and half a meter further on."""
    angle_rad = rng.uniform(0, 2 * np.pi)
    turn = np.array(
        [[np.cos(angle_rad), -np.sin(angle_rad)], [np.sin(angle_rad), np.cos(angle_rad)]]
    )
    turned = np.concatenate([sweep[:, :2] @ turn.T, sweep[:, 2:]], axis=1).astype(np.float32)
    return [turned, turned + np.array([0.5, 0, 0, 0], np.float32)]


def _segments(points: np.ndarray) -> np.ndarray:
    """Return the segment of each point: blocks of 10 m, 0 below the sensor."""
    block = np.floor(points[:, :2] / 10).clip(-5, 4).astype(np.int64) + 5
    return np.where(points[:, 2] > -1.2, block[:, 0] * 10 + block[:, 1] + 1, 0).astype(np.uint16)


def shares(step: Step, rounds: int) -> dict[str, float]:
    """Return the seconds of every part, the device made to finish after each; best of rounds."""
    best: dict[str, float] = {}
    for _ in range(rounds + 1):
        clock = [gpu_timing.now(step.device)]

        def note(part: str, clock: list[float] = clock) -> None:
            clock.append(gpu_timing.now(step.device))
            best[part] = min(best.get(part, np.inf), clock[-1] - clock[-2])

        step.run(note)
    return best


def compare(
    points: Path,
    num_samples: int,
    rounds: int,
    device: torch.device,
    tiny: bool,
    only: Sequence[str],
) -> None:
    """Print the figures of one batch size."""
    recipe = override(load_recipe("seal_small" if tiny else "seal"), TINY if tiny else REAL)
    batch = make_batch(points, num_samples, recipe).to(device)
    num_voxels = sum(len(each.features) for each in batch.frames)
    print(f"\n{num_samples} sample(s), {num_voxels} voxels, {len(batch.images)} images")
    for engine, format in CONTESTANTS:
        name = f"{engine} {format}"
        if name not in only:
            continue
        if problem := ENGINES.problem(engine):
            print(f"{name}: left out ({problem})")
            continue
        if not ENGINES.load(engine).runs_on(device):
            print(f"{name}: left out (not compiled for {device.type}; see docs/gpu.md)")
            continue
        with gpu_timing.tensor_cores(format):
            step = Step(recipe, batch, engine, format, device)
            step.run()
            memory = gpu_timing.peak_mb(step.run, device)
            runs = {"step": step.run, "networks": step.run_networks}
            times = gpu_timing.time_in_turns(runs, device, rounds)
            parts = shares(step, rounds)
        report = Report(num_samples, times["step"].median_s, times["networks"].median_s, parts)
        print(f"{name}: {report.text()}, peak {gpu_timing.in_mb(memory)} MB")


@dataclass(frozen=True)
class Report:
    """What was measured of one contestant."""

    num_samples: int
    step_s: float
    networks_s: float
    parts_s: dict[str, float]

    def text(self) -> str:
        """Return the figures in words."""
        rate = self.num_samples / self.step_s
        hours = EPOCHS * TRAIN_SAMPLES / rate / 3600
        whole = sum(self.parts_s.values())
        parts = ", ".join(f"{name} {each / whole:.0%}" for name, each in self.parts_s.items())
        return (
            f"{self.step_s * 1e3:.1f} ms a step, {rate:.2f} samples/s, {hours:.1f} h for {EPOCHS} "
            f"epochs of {TRAIN_SAMPLES} samples\n  {parts}\n  networks alone "
            f"{self.networks_s * 1e3:.1f} ms = {self.networks_s / self.step_s:.0%} of the step "
            f"(target at least {TARGET:.0%})"
        )


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=Path, help="a nuScenes sweep (default: SELKIE_DATA's)")
    parser.add_argument("--samples", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small network, to see that it runs")
    names = [f"{engine} {format}" for engine, format in CONTESTANTS]
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="CONTESTANT")
    args = parser.parse_args(arguments)
    device = gpu_timing.open_device(args.device)
    sweeps = sorted((DATA / "nuscenes" / "samples" / "LIDAR_TOP").glob("*.pcd.bin"))
    points = args.points or (sweeps[0] if sweeps else DATA / "nuscenes")
    print(gpu_timing.describe(device))
    for num_samples in args.samples:
        compare(points, num_samples, args.rounds, device, args.tiny, args.only)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))

"""A training step of minkunet34 on a GPU: every engine and number format, beside the floor.

    python -m benchmarks.gpu_engines [--points FILE.bin] [--scans 4 16] [--rounds 10]

Contestants: minkowski fp32; native fp32, tf32 and bf16; native without its Triton kernels; spconv
fp32 and bf16 where it or spconv-triton is installed. A step is forward, loss, backward and SGD. The
floor is the larger of the operations at the device's own rate of a large matrix product in that
format, and of the bytes, each feature read and written once in forward, input gradient and weight
gradient, at its rate of copying: no sparse engine can be faster. Memory is what a step adds.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import gpu_timing
from benchmarks.engines import DATA, load_scans
from pipeline.errors import UserError
from train.engines import native
from train.engines.contract import Kernel, Pointwise
from train.engines.table import ENGINES
from train.models.minkunet import MinkUNet, minkunet34, minkunet_small

TARGET = 2.0  # how many times faster native bf16 must be than minkowski fp32


@dataclass(frozen=True)
class Contestant:
    """One way to run the step."""

    engine: str
    format: str
    is_unfused: bool = False  # native without its Triton kernels

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.engine} {self.format}" + (", unfused" if self.is_unfused else "")


CONTESTANTS = (
    Contestant("minkowski", "fp32"),
    Contestant("native", "fp32"),
    Contestant("native", "tf32"),
    Contestant("native", "bf16"),
    Contestant("native", "fp32", is_unfused=True),
    Contestant("native", "bf16", is_unfused=True),
    Contestant("spconv", "fp32"),
    Contestant("spconv", "bf16"),
)


@dataclass(frozen=True)
class Work:
    """What a step cannot do without."""

    num_operations: float  # of the matrix products
    num_values: float  # features read and written, each once per pass


def problem(engine: str, device: torch.device) -> str | None:
    """Return why an engine does not run here, or None."""
    found = ENGINES.problem(engine)
    if found is None and engine == "minkowski" and not ENGINES.load(engine).runs_on(device):
        found = "engine 'minkowski': compiled for the CPU; see docs/gpu.md"
    return found


def make_step(
    who: Contestant, build: Callable[..., MinkUNet], features: Tensor, coordinates: Tensor
) -> Callable[[], None]:
    """Return a function that runs one training step."""
    torch.manual_seed(0)
    network = build(features.shape[1], 64, engine=who.engine).to(features.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    target = torch.linspace(-1, 1, 64, device=features.device)

    def step() -> None:
        optimizer.zero_grad()
        with gpu_timing.tensor_cores(who.format), unfused(who.is_unfused):
            with gpu_timing.autocast(who.format, features.device):
                out = network(features, coordinates)
            (F.normalize(out.float(), dim=1) * target).sum(1).mean().backward()
        optimizer.step()

    return step


def unfused(is_wanted: bool) -> AbstractContextManager:
    """Keep the native engine from its Triton kernels inside, if wanted."""
    return (
        mock.patch.object(native, "fused_kernels", lambda *_: None) if is_wanted else nullcontext()
    )


def count_work(build: Callable[..., MinkUNet], features: Tensor, coordinates: Tensor) -> Work:
    """Count operations and values of a step on a cloud, with the native engine's kernel maps."""
    network = build(features.shape[1], 64, engine="native").to(features.device)
    operations, values = [], []

    def note(module: nn.Module, inputs: tuple, result: object) -> None:
        passes = 2 if inputs[0] is features or getattr(module, "in_channels", 0) == 1 else 3
        if isinstance(module, Pointwise):
            pairs, (wide, out) = len(inputs[0]), module.kernel.shape
            rows = len(inputs[0]), len(result)
        else:
            fine, coarse = inputs[0].stride, result.stride
            if not isinstance(module, native.Convolution):
                fine, coarse = coarse, fine
            kernel_map = inputs[0].map.kernel_map(fine, coarse, module.kernel_size)
            pairs, wide, out = sum(kernel_map.fine.counts), module.in_channels, module.out_channels
            rows = len(inputs[0].features), len(result.features)
        operations.append(2 * pairs * wide * out * passes)
        values.append((rows[0] * wide + rows[1] * out) * passes)

    for module in network.modules():
        if isinstance(module, Kernel | Pointwise):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(features, coordinates)
    return Work(sum(operations), sum(values))


@functools.cache
def rates(format: str, device: torch.device, tiny: bool) -> tuple[float, float]:
    """Return operations and bytes a second of the device."""
    copied = gpu_timing.copy_rate(device, 2**20 if tiny else 2**30)
    return gpu_timing.gemm_rate(format, device, 128 if tiny else 8192), copied


def floor_s(work: Work, format: str, device: torch.device, tiny: bool) -> float:
    """Return the seconds below which no engine can get in a format."""
    operations, copied = rates(format, device, tiny)
    num_bytes = work.num_values * (2 if format == "bf16" else 4)
    return max(work.num_operations / operations, num_bytes / copied)


def compare(
    points: Path,
    num_scans: int,
    rounds: int,
    device: torch.device,
    tiny: bool,
    contestants: Sequence[Contestant],
) -> dict[str, gpu_timing.Timing]:
    """Print the table for one number of scans and return its times."""
    build = minkunet_small if tiny else minkunet34
    features, coordinates = (t.to(device) for t in load_scans(points, num_scans))
    work = count_work(build, features, coordinates)
    runs, memory = {}, {}
    for who in contestants:
        reason = problem(who.engine, device)
        if reason:
            print(f"{who.name}: left out ({reason})")
            continue
        runs[who] = make_step(who, build, features, coordinates)
        runs[who]()  # lazily made buffers and kernels are not the step's memory
        memory[who] = gpu_timing.peak_mb(runs[who], device)
    times = gpu_timing.time_in_turns({who.name: run for who, run in runs.items()}, device, rounds)
    gflop, gbyte = work.num_operations / 1e9, work.num_values * 4 / 1e9
    print(
        f"\n{num_scans} scan(s), {len(features)} voxels, {gflop:.1f} GFLOP, {gbyte:.2f} GB in fp32"
    )
    print(f"{'':28}{'best ms':>9}{'median ms':>11}{'floor ms':>10}{'x floor':>9}{'peak MB':>9}")
    for who in runs:
        floor, each = floor_s(work, who.format, device, tiny), times[who.name]
        print(
            f"{who.name:28}{each.best_s * 1e3:9.2f}{each.median_s * 1e3:11.2f}{floor * 1e3:10.3f}"
            f"{each.best_s / floor:9.1f}{gpu_timing.in_mb(memory[who]):>9}"
        )
    if {"minkowski fp32", "native bf16"} <= times.keys():
        gain = times["minkowski fp32"].median_s / times["native bf16"].median_s
        print(f"native bf16 is {gain:.2f} times as fast as minkowski fp32 (target {TARGET:g})")
    return times


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=Path, help="a nuScenes sweep (default: SELKIE_DATA's)")
    parser.add_argument("--scans", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small network, to see that it runs")
    names = [who.name for who in CONTESTANTS]
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="CONTESTANT")
    args = parser.parse_args(arguments)
    device = gpu_timing.open_device(args.device)
    ENGINES.modules["spconv"] = "benchmarks.spconv_engine"
    sweeps = sorted((DATA / "nuscenes" / "samples" / "LIDAR_TOP").glob("*.pcd.bin"))
    points = args.points or (sweeps[0] if sweeps else DATA / "nuscenes")
    print(gpu_timing.describe(device))
    chosen = [who for who in CONTESTANTS if who.name in args.only]
    for num_scans in args.scans:
        compare(points, num_scans, args.rounds, device, args.tiny, chosen)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))

"""A training step of minkunet34 with every engine, beside the GEMMs it cannot do without.

    python -m benchmarks.engines [--points FILE.bin] [--scans 1 4] [--rounds 7]
    CORES=1 python -m benchmarks.engines        # steadier on a machine that others use too

Per number of scans: time of one step (forward, loss, backward, SGD) of each engine, in turns within
one process so that a busy machine is unfair to all alike; the floor, which is the same GEMMs (count
and shape, forward and both gradients) on rows that already lie side by side; ratios to it; where
the native engine's time goes; peak memory, each engine in a process of its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CORES = os.environ.get("CORES") or str(len(os.sched_getaffinity(0)))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: MinkowskiEngine's order (design.md 5)
os.environ.setdefault("MKL_NUM_THREADS", CORES)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning on a shared core costs ten times

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from pipeline.errors import UserError, check  # noqa: E402
from train.engines.contract import Kernel, Pointwise  # noqa: E402
from train.engines.native import Convolution as NativeConvolution  # noqa: E402
from train.engines.table import ENGINES  # noqa: E402
from train.models.minkunet import MinkUNet, minkunet34  # noqa: E402
from train.voxelize import VoxelConfig, voxelize  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SELKIE_DATA", ROOT.parent / "shared" / "data"))
CATEGORIES = {  # aten operator -> what it does in the native engine
    "mm": "GEMM",
    "addmm": "GEMM",
    "index_select": "gather",
    "_embedding_bag_forward_only": "sum",
    "native_batch_norm": "batch norm",
    "native_batch_norm_backward": "batch norm",
    "searchsorted": "kernel maps",
    "sort": "kernel maps",
    "nonzero": "kernel maps",
    "index": "kernel maps",
    "_unique2": "kernel maps",
    "bincount": "kernel maps",
    "eq": "kernel maps",
}


def load_scans(path: Path, num_scans: int) -> tuple[Tensor, Tensor]:
    """Return features [V, 1] and coordinates [V, 4] of a sweep and turned copies of it."""
    check(path.is_file(), f"--points {path}: no such file; give a nuScenes .pcd.bin")
    points = np.fromfile(path, dtype=np.float32).reshape(-1, 5)
    features, coordinates = [], []
    for i in range(num_scans):
        angle_rad = np.deg2rad(37.0 * i)
        turn = np.array(
            [[np.cos(angle_rad), -np.sin(angle_rad)], [np.sin(angle_rad), np.cos(angle_rad)]]
        )
        turned = np.concatenate([points[:, :2] @ turn.T, points[:, 2:3]], axis=1)
        voxels = voxelize(turned, VoxelConfig())
        batch = np.full((len(voxels.cells), 1), i, dtype=np.int32)
        coordinates.append(np.concatenate([batch, voxels.cells], axis=1))
        features.append(points[voxels.point_idx, 3:4] / 255)
    return torch.from_numpy(np.concatenate(features)), torch.from_numpy(np.concatenate(coordinates))


def make_step(engine: str, features: Tensor, coordinates: Tensor) -> Callable[[], None]:
    """Return a function that runs one training step."""
    torch.manual_seed(0)
    network = minkunet34(1, 64, engine=engine)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    target = torch.linspace(-1, 1, 64)

    def step() -> None:
        optimizer.zero_grad()
        (F.normalize(network(features, coordinates), dim=1) * target).sum(1).mean().backward()
        optimizer.step()

    return step


def gemm_shapes(features: Tensor, coordinates: Tensor) -> list[tuple[int, int, int, int]]:
    """Return (pairs, C_in, C_out, passes) of every GEMM of a step, one entry per kernel offset."""
    network: MinkUNet = minkunet34(1, 64, engine="native")
    shapes: list[tuple[int, int, int, int]] = []

    def note(module: Kernel | Pointwise, inputs: tuple, _result: object) -> None:
        if isinstance(module, Pointwise):
            shapes.append((len(inputs[0]), *module.kernel.shape, 3))
            return
        tensor, ratio = inputs[0], module.stride
        coarse, fine = tensor.stride * ratio, tensor.stride
        if not isinstance(module, NativeConvolution):
            coarse, fine = tensor.stride, tensor.stride // ratio
        counts = tensor.map.kernel_map(fine, coarse, module.kernel_size).fine.counts
        passes = 2 if module.in_channels == 1 else 3  # the input cloud needs no gradient
        shapes.extend((n, module.in_channels, module.out_channels, passes) for n in counts)

    for module in network.modules():
        if isinstance(module, Kernel | Pointwise):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(features, coordinates)
    return shapes


def make_floor(shapes: list[tuple[int, int, int, int]]) -> Callable[[], None]:
    """Return a function that runs the GEMMs of a step and nothing else."""
    pool = torch.randn(max(n * max(a, b) for n, a, b, _ in shapes))
    out = torch.empty(max(max(n * max(a, b), a * b) for n, a, b, _ in shapes))
    weights = torch.randn(max(a * b for _, a, b, _ in shapes))

    def floor() -> None:
        for n, a, b, passes in shapes:
            rows, grad = pool[: n * a].view(n, a), pool[: n * b].view(n, b)
            kernel = weights[: a * b].view(a, b)
            torch.mm(rows, kernel, out=out[: n * b].view(n, b))
            torch.mm(rows.t(), grad, out=out[: a * b].view(a, b))
            if passes == 3:
                torch.mm(grad, kernel.t(), out=out[: n * a].view(n, a))

    return floor


def time_in_turns(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every step, one per round, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def shares(step: Callable[[], None]) -> dict[str, float]:
    """Return the share of every category in the time of a step, by torch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    total: dict[str, float] = {}
    for event in profile.key_averages():
        name = CATEGORIES.get(event.key.removeprefix("aten::"), "other")
        total[name] = total.get(name, 0.0) + event.self_cpu_time_total
    whole = sum(total.values())
    return {k: v / whole for k, v in sorted(total.items(), key=lambda item: -item[1])}


def peak_memory(engine: str, points: Path, num_scans: int) -> float:
    """Return by how much two steps raise the peak resident memory of a fresh process, MB."""
    command = [sys.executable, "-m", "benchmarks.engines", "--peak-of", engine]
    command += ["--points", str(points), "--scans", str(num_scans)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_resident_mb() -> float:
    """Return this process's peak resident memory (ru_maxrss would start at its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def compare(points: Path, num_scans: int, rounds: int, memory: bool) -> None:
    """Print the table for one number of scans."""
    features, coordinates = load_scans(points, num_scans)
    shapes = gemm_shapes(features, coordinates)
    gflop = sum(2 * n * a * b * passes for n, a, b, passes in shapes) / 1e9
    engines = [name for name in ENGINES if ENGINES.problem(name) is None]
    steps = {"floor": make_floor(shapes)}
    steps |= {name: make_step(name, features, coordinates) for name in engines}
    seconds = time_in_turns(steps, rounds)
    best = {name: min(each) for name, each in seconds.items()}
    print(f"\n{num_scans} scan(s), {len(features)} voxels, {gflop:.0f} GFLOP a step, {CORES} cores")
    print(f"{'':12}{'best ms':>10}{'median ms':>11}{'x floor':>9}{'x native':>10}{'peak MB':>9}")
    for name, each in seconds.items():
        peak = f"{peak_memory(name, points, num_scans):.0f}" if memory and name in engines else ""
        print(
            f"{name:12}{best[name] * 1e3:10.0f}{statistics.median(each) * 1e3:11.0f}"
            f"{best[name] / best['floor']:9.2f}{best[name] / best['native']:10.2f}{peak:>9}"
        )
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares(steps["native"]).items())
    print(f"native, where its time goes: {parts}")


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=Path, help="a nuScenes sweep (default: SELKIE_DATA's)")
    parser.add_argument("--scans", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(int(CORES))
    sweeps = sorted((DATA / "nuscenes" / "samples" / "LIDAR_TOP").glob("*.pcd.bin"))
    points = args.points or (sweeps[0] if sweeps else DATA / "nuscenes")
    if args.peak_of:
        step = make_step(args.peak_of, *load_scans(points, args.scans[0]))
        before_mb = peak_resident_mb()
        step()
        step()
        print(peak_resident_mb() - before_mb)
        return
    for num_scans in args.scans:
        compare(points, num_scans, args.rounds, memory=not args.no_memory)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))

"""What running on a Dask cluster costs: throughput of two workers, and the client's own share.

    python -m benchmarks.cluster [--rounds 3]

1. SLIC on the demo city with SCHEDULER=local:2 against two independent serial processes (--shard
   0/2 and 1/2), in turns on the same frames. The rate is that between the first and the last block
   that came to be done, so that starting up counts for neither; wall times are shown too.
2. CPU time and memory of the client (Dask's scheduler is in the same process) per frame of a stage
   that does nothing, one frame a block: planning, sending, collecting. 10,000 frames against 100,
   each in a process of its own.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import run
from pipeline.cluster import open_cluster
from pipeline.index import Index, build_index
from pipeline.job import BlockReport, BlockTask, Job
from pipeline.making import open_or_create
from pipeline.plan import plan
from pipeline.scheduler import Where
from pipeline.schema import ArraySpec
from pipeline.store import Header
from pipeline.synthetic.write import synthesize


@dataclass(frozen=True)
class Rate:
    """How fast a stage went."""

    steady: float  # frames/s between the first and the last block done
    wall_s: float  # of the commands


def measure_rate(what: list[str], commands: list[list[str]]) -> Rate:
    """Run commands at once on fresh stores and return their common rate; `what` goes to all."""
    with tempfile.TemporaryDirectory() as folder:
        start_s = time.perf_counter()
        words = [sys.executable, "-m", "pipeline", "run", "--stores", folder, *what]
        running = [
            subprocess.Popen([*words, *more], stderr=subprocess.DEVNULL) for more in commands
        ]
        if any(process.wait() for process in running):
            raise RuntimeError(f"{commands} failed; run one of them by hand to see why")
        wall_s = time.perf_counter() - start_s
        markers = sorted(
            (p.stat().st_mtime, json.loads(p.read_bytes())["num_frames"])
            for p in Path(folder).glob("*/*.blocks/[0-9]*.json")
        )
    frames = sum(count for _, count in markers[1:])
    return Rate(frames / (markers[-1][0] - markers[0][0]), wall_s)


def compare_throughput(city: Path, rounds: int) -> None:
    """Print the rate of two local workers over that of two serial processes."""
    ways = {
        "two serial processes": [["--shard", "0/2"], ["--shard", "1/2"]],
        "local:2": [["--scheduler", "local:2"]],
    }
    what = ["--dataset", "synthetic", "--root", str(city), "--stage", "superpixels"]
    rates: dict[str, list[Rate]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, commands in ways.items():
            rates[name].append(measure_rate(what, commands))
    steady = {name: statistics.median(r.steady for r in found) for name, found in rates.items()}
    for name, found in rates.items():
        wall_s = statistics.median(r.wall_s for r in found)
        print(f"{name:<22} {steady[name]:.3g} frames/s, {wall_s:.1f} s with start-up")
    print(f"{'ratio':<22} {steady['local:2'] / steady['two serial processes']:.3f} (reach 0.95)")


def do_nothing(payload: bytes, task: BlockTask) -> BlockReport:
    """Stand in for `compute_remotely`."""
    return BlockReport(task.block, 1, (), 0.0)


def measure_client(city: Path, num_frames: int) -> None:
    """Print CPU and memory that this process spends per frame, as JSON."""
    found = build_index("synthetic", city, "v1.0-mini")
    rows = np.arange(num_frames) % len(found)
    index = Index(**{**vars(found), "table": found.table.take(rows)})
    arrays = [ArraySpec("nothing", (), (), "uint8", 0)]
    header = Header("synthetic", "frames", 1, {}, "", index.capacity(), 1)
    run.compute_remotely = do_nothing
    with tempfile.TemporaryDirectory() as folder, open_cluster(Where("local", 2), "cpu") as cluster:
        path = Path(folder) / "frames.zarr"
        store = open_or_create(path, header, arrays, {})
        identity = store.attributes["store_id"]
        job = Job("frames", "synthetic", city, city, path, "", None, tuple(arrays), identity)
        cluster.expect_workers(job)
        cpu_s, memory_kb = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run.run_tasks(job, plan(store, index, range(num_frames)), cluster)
        cpu_s = time.process_time() - cpu_s
        memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kb
    print(json.dumps({"ms": 1000 * cpu_s / num_frames, "kb": memory_kb / num_frames}))


def compare_client(city: Path) -> None:
    """Print the client's share per frame at 100 and at 10,000 frames."""
    found = {}
    for num_frames in (100, 10_000):
        words = ["--city", str(city), "--client", str(num_frames)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.cluster", *words],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found[num_frames] = json.loads(done.stdout)
        print(
            f"{num_frames:>6} frames: client {found[num_frames]['ms']:.2f} ms CPU and "
            f"{found[num_frames]['kb']:.2f} kB per frame"
        )
    few, many = found[100], found[10_000]
    print(f"ratio {many['ms'] / few['ms']:.2f} CPU, {many['kb']:.2f} against {few['kb']:.2f} kB")


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--city", type=Path, help="a demo city, else made in a temporary folder")
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)  # one measurement, see above
    given = parser.parse_args()
    if given.client:
        measure_client(given.city, given.client)
        return
    folder = tempfile.mkdtemp()
    try:
        city = given.city or Path(folder) / "city"
        if not given.city:
            synthesize(city, "demo", 0)
        compare_client(city)
        compare_throughput(city, given.rounds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

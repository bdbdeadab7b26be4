"""What the temporal branch is worth where cameras and LiDAR do not fit, on the made-up city.

    python -m benchmarks.city_timing            runs what is missing, prints the table
    python -m benchmarks.city_timing --prepare  the cities and stores only; then, in two shells,
    python -m benchmarks.city_timing --shard 0/2 (and 1/2)
    python -m benchmarks.city_timing --table    only prints what is there

The `full` city three times: as it is, with cameras whose clock runs 100 ms behind, and with cameras
turned by one degree (benchmarks/misaligned_city.py). On each, four pretrainings of equal steps,
with and without L_tmp and L_p2s; then a linear probe, and the probed network on corrupted scans.
Validation looks at points alone, so the numbers tell what was learned, not what was measured with.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.city_gain import PRETRAIN, PROBE, SEEDS
from benchmarks.steps import Step, run_missing, run_tool, sets, spread
from eval.matrix import parse_shard
from eval.results import read_result
from eval.robustness import read_robustness

SHIFTS = {
    "as it is": (),
    "100 ms late": ("--delay-ms", "100"),
    "turned by 1 degree": ("--yaw-deg", "1"),
}
LOSSES = {
    "L_vfm": ("losses.temporal_weight=0", "losses.segment_weight=0"),
    "L_vfm + L_tmp": ("losses.segment_weight=0",),
    "L_vfm + L_p2s": ("losses.temporal_weight=0",),
    "Seal, all three": (),
}


@dataclass(frozen=True)
class Places:
    """Where everything lies, and how large it is."""

    work: Path
    size: str = "full"
    engine: str = "native"
    limit: int = 20  # validation frames under corruption

    @property
    def city(self) -> Path:
        """The city as it is."""
        return self.work / f"city-{self.size}-0"


@dataclass(frozen=True)
class Cell:
    """One line of the table, one seed."""

    shift: str
    losses: str
    seed: int

    @property
    def run(self) -> str:
        """Name of the run."""
        words = f"{self.shift} {self.losses} {self.seed}".lower().replace(",", "").split()
        return "-".join(word for word in words if word != "+")


def prepare(places: Places) -> Iterator[Step]:
    """Yield the cities and their stores."""
    size = ("--size", places.size)
    command = ("pipeline", "synthesize", *size, "--root", str(places.city))
    yield Step(command, places.city / "city.json")
    for shift, options in SHIFTS.items():
        root = places.city
        if options:
            root = places.work / _word(shift)
            move = ("--root", str(places.city), "--out", str(root), *options)
            yield Step(("benchmarks.misaligned_city", *move), root / "city.json")
        run = ("pipeline", "run", "--dataset", "synthetic", "--root", str(root))
        yield Step((*run, "--stores", str(_stores(places, shift))))  # knows itself what is done


def job(places: Places, cell: Cell) -> list[Step]:
    """Return pretraining, probe and corruption of a cell."""
    runs = places.work / "runs"
    there = ("--version", places.size, "--stores", str(_stores(places, cell.shift)))
    there += ("--runs", str(runs), "--engine", places.engine)
    named = ("--recipe", "seal_small", "--run", cell.run)
    settings = sets((*PRETRAIN, *LOSSES[cell.losses], f"seed={cell.seed}"))
    result = runs / cell.run / "results" / "linear-synthetic-train.json"
    probe = ("--seeds", str(cell.seed), *sets(PROBE))
    return [
        Step(("train", "pretrain", *there, *named, *settings), result),
        Step(("eval", "probe", *there, *named, *probe), result),
        Step(
            ("eval", "robustness", *there, *named, "--limit", str(places.limit)),
            runs / cell.run / "robustness" / "linear-synthetic-train.json",
        ),
    ]


def cells() -> list[Cell]:
    """Return every cell, seeds outermost, so that a whole table comes early."""
    return [Cell(shift, losses, seed) for seed in SEEDS for shift in SHIFTS for losses in LOSSES]


def table(runs: Path) -> str:
    """Return the Markdown table of the cells that have results."""
    corrupted = dict(read_robustness(runs))
    lines = [
        "| cameras | losses | mIoU, clean | mIoU, corrupted (mean of 24) | seeds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for shift in SHIFTS:
        for losses in LOSSES:
            names = [Cell(shift, losses, seed).run for seed in SEEDS]
            files = [runs / name / "results" / "linear-synthetic-train.json" for name in names]
            clean = [read_result(path).mean for path in files if path.exists()]
            found = [corrupted[name] for name in names if name in corrupted]
            hard = [float(np.mean(list(each.miou.values()))) for each in found]
            if clean:
                shown = f"{spread(clean)} | {spread(hard)} | {len(clean)}"
                lines.append(f"| {shift} | {losses} | {shown} |")
    return "\n".join(lines)


def _stores(places: Places, shift: str) -> Path:
    return places.work / f"stores-{_word(shift)}"


def _word(shift: str) -> str:
    return shift.replace(" ", "-")


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/city_timing"))
    parser.add_argument("--size", default="full", help="of the city; tiny to try it out")
    parser.add_argument("--engine", default="native")
    parser.add_argument("--limit", type=int, default=20, help="validation frames under corruption")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th cell, from the i-th")
    parser.add_argument("--prepare", action="store_true", help="only make cities and stores")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    places = Places(options.work, options.size, options.engine, options.limit)
    parse_shard(options.shard)
    if not options.table:
        run_missing([list(prepare(places))])
    if not options.table and not options.prepare:
        run_missing([job(places, cell) for cell in cells()], options.shard)
    print(table(places.work / "runs"))


if __name__ == "__main__":
    run_tool(main)

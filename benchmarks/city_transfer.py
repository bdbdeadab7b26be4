"""What pretraining in one made-up city is worth in another city with another LiDAR.

    python -m benchmarks.city_gain --only seal-slic,slidr-slic     pretrains, first
    python -m benchmarks.city_transfer            runs what is missing, prints the table
    python -m benchmarks.city_transfer --prepare  the other city only; then, in two shells,
    python -m benchmarks.city_transfer --shard 0/2 (and 1/2)
    python -m benchmarks.city_transfer --table    only prints what is there

Pretrained on the `full` city of seed 0, 32 beams; linear probe and fine-tuning on 1 % of the
labels of the city of seed 1, whose LiDAR has 64 beams at other angles and another mount; the same
from random weights. Of the second city only points and labels are read.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.city_gain import PROBE, SEEDS, run_name
from benchmarks.city_labels import settings
from benchmarks.steps import Step, run_missing, run_tool, sets, spread
from eval.matrix import parse_shard
from eval.results import read_result

STARTS = {"random": None, "SLidR": "slidr-slic", "Seal": "seal-slic"}  # name -> city_gain's cell
LIDAR = "beams64"
MEASURES = {  # -> result file, what is set
    "probe": ("linear-synthetic-train.json", PROBE),
    "fewshot": ("few_shot-synthetic-1pct.json", settings("1pct")),
}


@dataclass(frozen=True)
class Places:
    """Where everything lies, and how large it is."""

    work: Path = Path("runs/city_transfer")
    pretrained: Path = Path("runs/city_gain")
    size: str = "full"
    engine: str = "native"

    @property
    def other(self) -> str:
        """Version of the second city."""
        return f"{self.size}-1-{LIDAR}"

    @property
    def stores(self) -> Path:
        """Folder of the second city's stores."""
        return self.work / "stores"

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return self.work / "runs"


@dataclass(frozen=True)
class Cell:
    """One line of the table, one seed."""

    start: str
    seed: int

    @property
    def run(self) -> str:
        """Name of the run."""
        return f"{self.start.lower()}-{self.seed}"


def prepare(places: Places) -> Iterator[Step]:
    """Yield the second city and what is needed of it."""
    root = places.work / "other-city"
    make = ("pipeline", "synthesize", "--size", places.size, "--root", str(root))
    yield Step((*make, "--seed", "1", "--lidar", LIDAR), root / "city.json")
    run = ("pipeline", "run", "--dataset", "synthetic", "--root", str(root), "--stage", "frames")
    yield Step((*run, "--stores", str(places.stores)))


def job(places: Places, cell: Cell) -> list[Step]:
    """Return the measures of a cell."""
    shared = ("--version", places.other, "--stores", str(places.stores), "--run", cell.run)
    shared += ("--runs", str(places.runs), "--engine", places.engine, "--seeds", str(cell.seed))
    weights, start = ("--recipe", "seal_small", "--init", "random"), STARTS[cell.start]
    if start:
        checkpoint = places.pretrained / run_name(start, cell.seed) / "checkpoint.pt"
        weights = ("--checkpoint", str(checkpoint))
    return [
        Step(
            ("eval", measure, *shared, *weights, *sets(chosen)),
            places.runs / cell.run / "results" / file,
        )
        for measure, (file, chosen) in MEASURES.items()
    ]


def cells() -> list[Cell]:
    """Return every cell, seeds outermost, so that a whole table comes early."""
    return [Cell(start, seed) for seed in SEEDS for start in STARTS]


def table(runs: Path) -> str:
    """Return the Markdown table of the cells that have results."""
    lines = ["| start | linear probe | 1 % of the labels | seeds |", "| --- | --- | --- | --- |"]
    for start in STARTS:
        folders = [runs / Cell(start, seed).run / "results" for seed in SEEDS]
        found = [
            [read_result(folder / file).mean for folder in folders if (folder / file).exists()]
            for file, _ in MEASURES.values()
        ]
        if any(found):
            seeds = min(len(values) for values in found)
            lines.append(f"| {start} | {' | '.join(map(spread, found))} | {seeds} |")
    return "\n".join(lines)


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Places.work)
    parser.add_argument("--pretrained", type=Path, default=Places.pretrained)
    parser.add_argument("--size", default=Places.size, help="of the second city")
    parser.add_argument("--engine", default=Places.engine)
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th cell, from the i-th")
    parser.add_argument("--prepare", action="store_true", help="only make cities and stores")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    places = Places(options.work, options.pretrained, options.size, options.engine)
    parse_shard(options.shard)
    if not options.table:
        run_missing([list(prepare(places))])
    if not options.table and not options.prepare:
        run_missing([job(places, cell) for cell in cells()], options.shard)
    print(table(places.runs))


if __name__ == "__main__":
    run_tool(main)

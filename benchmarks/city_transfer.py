"""What pretraining in one made-up city is worth in another city with another LiDAR.

    python -m benchmarks.city_transfer            runs what is missing, prints the table
    python -m benchmarks.city_transfer --prepare  the cities and stores only; then, in two shells,
    python -m benchmarks.city_transfer --shard 0/2 (and 1/2)
    python -m benchmarks.city_transfer --table    only prints what is there

Pretraining on the `full` city of seed 0, 32 beams; linear probe and fine-tuning on 1 % of the
labels of the city of seed 1, whose LiDAR has 64 beams at other angles and another mount; the same
from random weights. Of the second city only points and labels are read.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.city_gain import PRETRAIN, PROBE, SEEDS
from benchmarks.steps import Step, run_missing, run_tool, sets, spread
from eval.matrix import parse_shard
from eval.results import read_result

STARTS = {"random": None, "SLidR": "slidr_small", "Seal": "seal_small"}  # name -> recipe
LIDAR = "beams64"
MEASURES = ("probe", "fewshot")
FILES = {"probe": "linear-synthetic-train.json", "fewshot": "few_shot-synthetic-1pct.json"}


@dataclass(frozen=True)
class Places:
    """Where everything lies, and how large it is."""

    work: Path
    size: str = "full"
    engine: str = "native"

    @property
    def other(self) -> str:
        """Version of the second city."""
        return f"{self.size}-1-{LIDAR}"

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
    """Yield both cities and what is needed of them."""
    first, second = places.work / "city", places.work / "other-city"
    make = ("pipeline", "synthesize", "--size", places.size)
    yield Step((*make, "--root", str(first)), first / "city.json")
    other = ("--root", str(second), "--seed", "1", "--lidar", LIDAR)
    yield Step((*make, *other), second / "city.json")
    for root, stages in ((first, ()), (second, ("--stage", "frames"))):
        there = ("--root", str(root), "--stores", str(places.work / "stores"))
        yield Step(("pipeline", "run", "--dataset", "synthetic", *there, *stages))


def job(places: Places, cell: Cell) -> list[Step]:
    """Return the steps of a cell."""
    recipe, results = STARTS[cell.start], places.runs / cell.run / "results"
    shared = ("--stores", str(places.work / "stores"), "--runs", str(places.runs))
    shared += ("--engine", places.engine, "--run", cell.run)
    steps, weights = [], ("--recipe", "seal_small", "--init", "random")
    if recipe:
        settings = sets((*PRETRAIN, f"seed={cell.seed}"))
        here = ("--version", places.size, *shared, "--recipe", recipe)
        steps.append(Step(("train", "pretrain", *here, *settings)))
        weights = ("--checkpoint", str(places.runs / cell.run / "checkpoint.pt"))
    for measure in MEASURES:
        there = ("--version", places.other, *shared, *weights, "--seeds", str(cell.seed))
        settings = sets(PROBE) if measure == "probe" else []
        steps.append(Step(("eval", measure, *there, *settings), results / FILES[measure]))
    return steps


def cells() -> list[Cell]:
    """Return every cell, seeds outermost, so that a whole table comes early."""
    return [Cell(start, seed) for seed in SEEDS for start in STARTS]


def table(runs: Path) -> str:
    """Return the Markdown table of the cells that have results."""
    lines = ["| start | linear probe | 1 % of the labels | seeds |", "| --- | --- | --- | --- |"]
    for start in STARTS:
        folders = [runs / Cell(start, seed).run / "results" for seed in SEEDS]
        found = [
            [
                read_result(folder / FILES[m]).mean
                for folder in folders
                if (folder / FILES[m]).exists()
            ]
            for m in MEASURES
        ]
        if any(found):
            seeds = min(len(values) for values in found)
            lines.append(f"| {start} | {' | '.join(map(spread, found))} | {seeds} |")
    return "\n".join(lines)


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/city_transfer"))
    parser.add_argument("--size", default="full", help="of the cities; tiny to try it out")
    parser.add_argument("--engine", default="native")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th cell, from the i-th")
    parser.add_argument("--prepare", action="store_true", help="only make cities and stores")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    places = Places(options.work, options.size, options.engine)
    parse_shard(options.shard)
    if not options.table:
        run_missing([list(prepare(places))])
    if not options.table and not options.prepare:
        run_missing([job(places, cell) for cell in cells()], options.shard)
    print(table(places.runs))


if __name__ == "__main__":
    run_tool(main)

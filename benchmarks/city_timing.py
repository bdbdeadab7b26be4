"""What the temporal branch is worth where cameras and LiDAR do not fit, on the made-up city.

    python -m benchmarks.city_gain --only seal-slic,slidr-slic,seal-no-temporal,seal-no-segments
                                                first: the city as it is
    python -m benchmarks.city_timing            runs what is missing, prints the table
    python -m benchmarks.city_timing --prepare  moved cities and their stores; then, in two shells,
    python -m benchmarks.city_timing --shard 0/2 (and 1/2)
    python -m benchmarks.city_timing --table    only prints what is there

The `full` city three times: as it is, with cameras whose clock runs 100 ms behind, and with cameras
turned by one degree (benchmarks/misaligned_city.py). On each, four pretrainings of `city_gain`,
with and without L_tmp and L_p2s; then a linear probe, and the probed network on corrupted scans.
Validation looks at points alone, so the numbers tell what was learned, not what was measured with.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.city_gain import CELLS, SEEDS, commands, run_name
from benchmarks.steps import Step, run_missing, run_tool, spread
from eval.matrix import parse_shard
from eval.results import read_result
from eval.robustness import read_robustness
from pipeline.errors import check
from pipeline.index import find_folder
from train.stores import StorePaths, Stores

AS_IT_IS = "as it is"
SHIFTS = {
    AS_IT_IS: (),
    "100 ms late": ("--delay-ms", "100"),
    "turned by 1 degree": ("--yaw-deg", "1"),
}
LOSSES = {  # name -> cell of city_gain
    "L_vfm": "slidr-slic",
    "L_vfm + L_tmp": "seal-no-segments",
    "L_vfm + L_p2s": "seal-no-temporal",
    "Seal, all three": "seal-slic",
}
RESULT = "linear-synthetic-train.json"
SEGMENTS = "segments.zarr"


@dataclass(frozen=True)
class Places:
    """Where everything lies, and how large it is."""

    root: Path = Path("data/city-full-0")  # the city as it is, its stores and its runs
    stores: Path = Path("stores")
    pretrained: Path = Path("runs/city_gain")
    work: Path = Path("runs/city_timing")  # the moved ones and theirs
    version: str = "full"
    engine: str = "native"
    limit: int = 20  # validation frames under corruption

    def moved(self, shift: str, what: str) -> Path:
        """Return the folder of a moved city ('city'), its stores or its runs."""
        return self.work / shift.replace(" ", "-") / what

    def stores_of(self, shift: str) -> Path:
        """Return the stores of a city."""
        return self.stores if shift == AS_IT_IS else self.moved(shift, "stores")

    def runs_of(self, shift: str) -> Path:
        """Return the runs on a city."""
        return self.pretrained if shift == AS_IT_IS else self.moved(shift, "runs")


@dataclass(frozen=True)
class Cell:
    """One line of the table, one seed."""

    shift: str
    losses: str
    seed: int

    @property
    def run(self) -> str:
        """Name of the run, city_gain's."""
        return run_name(LOSSES[self.losses], self.seed)


def prepare(places: Places) -> Iterator[Step]:
    """Yield the moved cities and their stores."""
    for shift, options in SHIFTS.items():
        if options:
            root = places.moved(shift, "city")
            move = ("--root", str(places.root), "--out", str(root), *options)
            yield Step(("benchmarks.misaligned_city", *move), root / "city.json")
            run = ("pipeline", "run", "--dataset", "synthetic", "--root", str(root))
            yield Step((*run, "--stores", str(places.moved(shift, "stores"))))  # knows what is done


def check_segments(places: Places) -> None:
    """Refuse cities whose segments, or those of a run on them, were made in different ways.

    Raises:
        UserError: they differ, or a store is missing.
    """
    made = {}
    for shift in SHIFTS:
        folder = find_folder(places.stores_of(shift), "synthetic", places.version)
        made[shift] = Stores(StorePaths(folder)).hashes(("segments",))[SEGMENTS]
        for cell in (each for each in cells() if each.shift == shift):
            path = places.runs_of(shift) / cell.run / "config.json"
            stores = json.loads(path.read_text())["stores"] if path.exists() else {}
            made |= {str(path.parent): stores[SEGMENTS]} if SEGMENTS in stores else {}
    check(
        len(set(made.values())) == 1,
        f"{places.stores}: segments of all cities and of the runs on them must be made alike, got "
        f"{made}; make them again, and what was pretrained on them",
    )


def job(places: Places, cell: Cell) -> list[Step]:
    """Return pretraining, probe and corruption of a cell."""
    runs = places.runs_of(cell.shift)
    there = ["--version", places.version, "--stores", str(places.stores_of(cell.shift))]
    there += ["--runs", str(runs), "--engine", places.engine]
    (gain,) = (each for each in CELLS if each.name == LOSSES[cell.losses])
    result = runs / cell.run / "results" / RESULT
    steps = [Step(tuple(command), result) for command in commands(gain, cell.seed, there)]
    named = ("--recipe", gain.recipe, "--run", cell.run, "--limit", str(places.limit))
    written = runs / cell.run / "robustness" / RESULT
    return [*steps, Step(("eval", "robustness", *there, *named), written)]


def cells() -> list[Cell]:
    """Return every cell, seeds outermost, so that a whole table comes early."""
    return [Cell(shift, losses, seed) for seed in SEEDS for shift in SHIFTS for losses in LOSSES]


def table(places: Places) -> str:
    """Return the Markdown table of the cells that have results."""
    lines = [
        "| cameras | losses | mIoU, clean | mIoU, corrupted (mean of 24) | seeds of each |",
        "| --- | --- | --- | --- | --- |",
    ]
    for shift in SHIFTS:
        runs = places.runs_of(shift)
        corrupted = dict(read_robustness(runs))
        for losses in LOSSES:
            names = [Cell(shift, losses, seed).run for seed in SEEDS]
            files = [runs / name / "results" / RESULT for name in names]
            clean = [read_result(path).mean for path in files if path.exists()]
            found = [corrupted[name] for name in names if name in corrupted]
            hard = [float(np.mean(list(each.miou.values()))) for each in found]
            if clean:
                shown = f"{spread(clean)} | {spread(hard)} | {len(clean)}, {len(hard)}"
                lines.append(f"| {shift} | {losses} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in ("root", "stores", "pretrained", "work"):
        parser.add_argument(f"--{field}", type=Path, default=getattr(Places, field))
    parser.add_argument("--version", default=Places.version)
    parser.add_argument("--engine", default=Places.engine)
    parser.add_argument(
        "--limit", type=int, default=Places.limit, help="validation frames under corruption"
    )
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th cell, from the i-th")
    parser.add_argument("--prepare", action="store_true", help="only make cities and stores")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    given = vars(parser.parse_args())
    shard, only_prepare, only_table = (given.pop(name) for name in ("shard", "prepare", "table"))
    places = Places(**given)
    parse_shard(shard)
    if not only_table:
        run_missing([list(prepare(places))])
        check_segments(places)
    if not only_table and not only_prepare:
        run_missing([job(places, cell) for cell in cells()], shard)
    print(table(places))


if __name__ == "__main__":
    run_tool(main)

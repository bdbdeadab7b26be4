"""What is gained by pretraining on the made-up city, and would the gain be there anyway.

    make synthetic SIZE=full
    make superpixels DATASET=synthetic VERSION=full [VFM=slic]
    and `make stage STAGE=superpixels DATASET=synthetic VERSION=full` for each of
        VFM=oracle, VFM=sam, and VFM=oracle@cut ARGS='--set split_above=0.02'
    python -m benchmarks.city_gain [--shard 0/2] [--only seal-slic,random]      runs what is missing
    python -m benchmarks.city_gain --table                                      prints the table

Every cell is a pretraining (the same steps and batch for all, and but for cosine distillation the
same optimizer and rate) and a linear probe, or a baseline, once per seed, each a plain command of
`python -m train` and `python -m eval` with a run folder of its own; finished ones are skipped,
unfinished ones go on. Shards on one machine are best given cores of their own (`taskset -c 0 ..`),
since torch takes all it may use. Learning rates were chosen on the `demo` city's validation scenes,
which the `full` city's are not (docs/benchmarks.md).
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.results import Result, read_results

SEEDS = (0, 1, 2)
PRETRAIN = ("split=half", "epochs=2", "optimizer.schedule=one_cycle")
PROBE = ("lr=2", "feature_passes=1", "epochs=10")
SUPERVISED = ("epochs=4", "lr=0.2")


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    name: str
    about: str
    init: str = "checkpoint"  # what the last command starts from
    recipe: str = "seal_small"
    source: str = "slic"
    pretrain: tuple[str, ...] = ()  # settings beside PRETRAIN
    measure: str = "probe"
    split: str = "train"
    settings: tuple[str, ...] = PROBE  # of the last command


NO_WEIGHTS = "teacher.weights=none"
RAW_RGB = ("teacher.kind=raw_rgb", NO_WEIGHTS)
SLIDR = "slidr_small"
CELLS = (
    Cell("random", "random weights, batch-norm statistics as they are", init="random"),
    Cell(
        "random-calibrated",
        "random weights, batch-norm statistics of training scans",
        init="random",
        settings=(*PROBE, "calibrate=true"),
    ),
    Cell("seal-slic", "Seal, SLIC superpixels"),
    Cell("slidr-slic", "SLidR, SLIC superpixels", recipe=SLIDR),
    Cell("ppkt", "PPKT", recipe="ppkt_small"),
    Cell("st-slidr", "ST-SLidR, SLIC superpixels", recipe="st_slidr_small"),
    Cell("cosine", "cosine distillation (ScaLR's loss), AdamW", recipe="cosine_small"),
    Cell("seal-no-temporal", "Seal without L_tmp", pretrain=("losses.temporal_weight=0",)),
    Cell("seal-no-segments", "Seal without L_p2s", pretrain=("losses.segment_weight=0",)),
    Cell("seal-no-images", "Seal without L_vfm", pretrain=("losses.superpixel_weight=0",)),
    Cell(
        "slidr-shuffled",
        "SLidR, control: pairs shuffled",
        recipe=SLIDR,
        pretrain=("shuffle_pairs=true",),
    ),
    Cell("slidr-rgb", "SLidR, control: raw RGB as the teacher", recipe=SLIDR, pretrain=RAW_RGB),
    Cell("seal-oracle-cut", "Seal, true object masks, large ones cut", source="oracle@cut"),
    Cell(
        "supervised",
        "all labels, every layer, from scratch",
        init="random",
        measure="fewshot",
        split="full",
        settings=SUPERVISED,
    ),
    Cell(
        "slidr-random-teacher",
        "SLidR, control: teacher with random weights",
        recipe=SLIDR,
        pretrain=(NO_WEIGHTS,),
    ),
    Cell("seal-oracle", "Seal, true object masks", source="oracle"),
    Cell("seal-sam", "Seal, tiny SAM, which has seen synthetic instance masks", source="sam"),
    Cell("seal-shuffled", "Seal, control: pairs shuffled", pretrain=("shuffle_pairs=true",)),
    Cell("seal-rgb", "Seal, control: raw RGB as the teacher", pretrain=RAW_RGB),
    Cell(
        "seal-random-teacher", "Seal, control: teacher with random weights", pretrain=(NO_WEIGHTS,)
    ),
    Cell("teacher", "the teacher's own features lifted to points", init="teacher"),
)


def commands(cell: Cell, seed: int, places: list[str]) -> Iterator[list[str]]:
    """Yield the commands of a cell and seed: pretraining where there is one, then the measure."""
    run = ["--run", run_name(cell.name, seed), "--recipe", cell.recipe, "--source", cell.source]
    if cell.init == "checkpoint":
        settings = [*PRETRAIN, *cell.pretrain, f"seed={seed}"]
        yield ["train", "pretrain", *places, *run, *_sets(settings)]
    more = ["--init", cell.init, "--split", cell.split, "--seeds", str(seed)]
    yield ["eval", cell.measure, *places, *run, *more, *_sets(cell.settings)]


def run_name(cell: str, seed: int) -> str:
    """Return the name of the folder of a cell, by its name, and a seed."""
    return f"{cell}-{seed}"


def table(results: dict[str, Result]) -> str:
    """Return the Markdown table of the cells that have results.

    Args:
        results: run name -> result.
    """
    lines = [
        "| start | mIoU, all points | mIoU, points a camera sees | seeds |",
        "| --- | --- | --- | --- |",
    ]
    for cell in CELLS:
        names = [run_name(cell.name, seed) for seed in SEEDS]
        found = [results[name] for name in names if name in results]
        if not found:
            continue
        everywhere = [result.miou[0] for result in found]
        seen = [result.miou_seen[0] for result in found if result.miou_seen]
        shown = "" if cell.init == "teacher" else _spread(everywhere)
        lines.append(f"| {cell.about} | {shown} | {_spread(seen)} | {len(found)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} +- {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _sets(settings: list[str] | tuple[str, ...]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", type=Path, default=Path("stores"))
    parser.add_argument("--runs", type=Path, default=Path("runs/city_gain"))
    parser.add_argument("--version", default="full")
    parser.add_argument("--engine", default="native")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th run, from the i-th")
    parser.add_argument("--only", default="", help="comma-separated names of cells")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    places = ["--version", options.version, "--stores", str(options.stores)]
    places += ["--runs", str(options.runs), "--engine", options.engine]
    number, count = map(int, options.shard.split("/"))
    wanted = options.only.split(",") if options.only else [cell.name for cell in CELLS]
    seeds = map(int, options.seeds.split(","))
    jobs = [(cell, seed) for seed in seeds for cell in CELLS if cell.name in wanted]
    for cell, seed in [] if options.table else jobs[number::count]:
        if any((options.runs / run_name(cell.name, seed) / "results").glob("*.json")):
            continue
        for command in commands(cell, seed, places):
            print("python -m", *command, flush=True)
            subprocess.run([sys.executable, "-m", *command], check=True)
    print(table(dict(read_results(options.runs))))


if __name__ == "__main__":
    main()

"""What pretraining saves in labels on the made-up city: fine-tuning on 1 % to all of them.

    python -m benchmarks.city_gain --only seal-slic,slidr-slic,ppkt,st-slidr    pretrains, first
    python -m benchmarks.city_labels [--shard 0/2] [--splits 1pct,5pct]         runs what is missing
    python -m benchmarks.city_labels --table                                    prints the table

Starts are the checkpoints of `city_gain`, seed by seed, and random weights. All layers are trained,
a new last layer at its own rate (`python -m eval fewshot`). Small label sets are passed over more
often: the number of steps grows with the number of labels, but less than they do. The rate was
chosen on the `demo` city, where 0.05 did worse from random weights and from Seal's.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks.city_gain import CELLS, SEEDS, run_name
from benchmarks.steps import Step, run_missing, run_tool, sets, spread
from eval.results import read_result
from pipeline.errors import unknown_name

EPOCHS = {"1pct": 40, "5pct": 20, "10pct": 10, "25pct": 8, "half": 6, "full": 4}
RATE = "lr=0.2"
NAMES = ("random", "ppkt", "slidr-slic", "st-slidr", "seal-slic")
STARTS = tuple(cell for cell in CELLS if cell.name in NAMES)


@dataclass(frozen=True)
class Places:
    """Where stores and runs lie."""

    stores: Path
    pretrained: Path  # runs of city_gain
    runs: Path
    version: str = "full"
    engine: str = "native"

    def result(self, name: str, split: str) -> Path:
        """Return the result file of a run on a split."""
        return self.runs / name / "results" / f"few_shot-synthetic-{split}.json"


def jobs(places: Places, splits: list[str]) -> list[list[Step]]:
    """Return one command per job; seeds outermost, so that a whole table comes early."""
    found = []
    for seed in SEEDS:
        for split in splits:
            for cell in STARTS:
                name = run_name(cell.name, seed)
                words = ["eval", "fewshot", "--version", places.version, "--run", name]
                words += ["--stores", str(places.stores), "--runs", str(places.runs)]
                words += ["--engine", places.engine, "--split", split, "--seeds", str(seed)]
                if cell.init == "random":
                    words += ["--init", "random", "--recipe", cell.recipe]
                else:
                    words += ["--checkpoint", str(places.pretrained / name / "checkpoint.pt")]
                command = (*words, *sets(settings(split)))
                found.append([Step(command, places.result(name, split))])
    return found


def settings(split: str) -> tuple[str, ...]:
    """Return the settings of fine-tuning on a split."""
    return (f"epochs={EPOCHS[split]}", RATE)


def table(places: Places) -> str:
    """Return the Markdown table of what has been measured."""
    lines = [f"| start | {' | '.join(EPOCHS)} |", "| --- |" + " --- |" * len(EPOCHS)]
    for cell in STARTS:
        columns = []
        for split in EPOCHS:
            files = [places.result(run_name(cell.name, seed), split) for seed in SEEDS]
            values = [read_result(file).mean for file in files if file.exists()]
            count = f" ({len(values)})" if 0 < len(values) < len(SEEDS) else ""
            columns.append(spread(values) + count)
        lines.append(f"| {cell.about} | {' | '.join(columns)} |")
    return "\n".join(lines)


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", type=Path, default=Path("stores"))
    parser.add_argument("--pretrained", type=Path, default=Path("runs/city_gain"))
    parser.add_argument("--runs", type=Path, default=Path("runs/city_labels"))
    parser.add_argument("--version", default="full")
    parser.add_argument("--engine", default="native")
    parser.add_argument("--splits", default=",".join(EPOCHS))
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th run, from the i-th")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    places = Places(
        options.stores, options.pretrained, options.runs, options.version, options.engine
    )
    splits = options.splits.split(",")
    for split in splits:
        if split not in EPOCHS:
            raise unknown_name("--splits", split, EPOCHS)
    if not options.table:
        run_missing(jobs(places, splits), options.shard)
    print(table(places))


if __name__ == "__main__":
    run_tool(main)

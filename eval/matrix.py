"""The whole matrix of a paper's table: data set x labels x init x seed, each cell a result file.

In: names. Out: one run folder per data set, init and seed below `<runs>/table`, and the table as
Markdown. A cell whose result stands is skipped, so a stopped matrix goes on where it was; shards
share nothing but the folder.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from eval.probes.table import PROBES
from eval.protocol import Start, find_start, run_protocol
from eval.results import Result, read_result, read_results
from pipeline.config import differences, override, to_plain
from pipeline.errors import check
from pipeline.index import read_index
from train.stores import StorePaths, Stores
from train.trainer import Machine

LINEAR = "lp"  # the column of the linear probe on all labels
SEMI = "semi-"  # before a split: all other scans take part without labels
TABLE = "table"


@dataclass(frozen=True)
class Cell:
    """One number to measure."""

    place: Path  # `<stores>/<data set>`
    init: str  # 'random', the name of a run, or a file of weights
    split: str  # column: 'lp', '1pct', 'semi-1pct', ..
    seed: int

    @property
    def protocol(self) -> str:
        """Name in the table of probes."""
        if self.split == LINEAR:
            return "linear"
        return "semi_supervised" if self.split.startswith(SEMI) else "few_shot"

    @property
    def labels(self) -> str:
        """The split that is trained on."""
        return "train" if self.split == LINEAR else self.split.removeprefix(SEMI)

    def folder(self, runs: Path) -> Path:
        """Return the cell's run folder; cells that differ in their column alone share it."""
        name = self.init.replace("/", "_")
        return runs / TABLE / f"{name}-{self.place.name}-{self.seed}"

    def result_path(self, runs: Path, dataset: str) -> Path:
        """Return the cell's result file, which stands once the cell is measured."""
        return self.folder(runs) / "results" / f"{self.protocol}-{dataset}-{self.labels}.json"


@dataclass(frozen=True)
class Matrix:
    """What to measure, in the order given: seeds outermost, so that a whole table comes early."""

    places: tuple[Path, ...]
    inits: tuple[str, ...]
    splits: tuple[str, ...]
    seeds: tuple[int, ...]

    def cells(self) -> list[Cell]:
        """Return every cell."""
        return [
            Cell(place, init, split, seed)
            for seed in self.seeds
            for place in self.places
            for init in self.inits
            for split in self.splits
        ]


def run_matrix(
    matrix: Matrix,
    runs: Path,
    recipe: str,
    settings: tuple[str, ...],
    shard: tuple[int, int],
    machine: Machine,
) -> Iterator[str]:
    """Measure every missing cell of a shard; yield a line per cell.

    Args:
        matrix: what to measure.
        runs: folder of runs; pretrained ones are looked up here by name.
        recipe: network of a random start.
        settings: 'key=value' of the protocols.
        shard: (i, n): every n-th cell, from the i-th.
        machine: engine and device.

    Raises:
        UserError: an init that is none, before anything is measured, an empty split, or a cell
            that was measured with other settings or another checkpoint.
    """
    check(
        bool(matrix.inits and matrix.splits and matrix.seeds),
        f"table: must have inits, splits and seeds, got {matrix.inits}, {matrix.splits}",
    )
    for place in matrix.places:
        index = read_index(place / "index.parquet")
        for cell in replace(matrix, places=(place,)).cells():
            index.split_mask(cell.labels)  # refuses one that is none
    number, count = shard
    starts = {init: _start(runs, init, recipe) for init in matrix.inits}
    for cell in matrix.cells()[number::count]:
        stores = Stores(StorePaths(cell.place, intensity=starts[cell.init].intensity))
        path = cell.result_path(runs, stores.index.dataset)
        if path.exists():
            _check_as_asked(path, cell, starts[cell.init], settings)
            yield f"{_words(cell)}: done before"
            continue
        result, _ = run_protocol(
            cell.folder(runs),
            stores,
            cell.protocol,
            cell.labels,
            starts[cell.init],
            settings,
            (cell.seed,),
            machine,
            keep_network=False,
        )
        yield f"{_words(cell)}: mIoU {result.mean:.2f} %"


def parse_shard(text: str) -> tuple[int, int]:
    """Return 'i/n' as numbers.

    Raises:
        UserError: it is not that.
    """
    number, _, count = text.partition("/")
    check(
        number.isdecimal() and count.isdecimal() and int(number) < int(count),
        f"--shard: must be i/n with 0 <= i < n, got '{text}'; for example --shard 0/4",
    )
    return int(number), int(count)


def markdown(matrix: Matrix, runs: Path) -> str:
    """Return the table of what has been measured: a line per data set and init, mean +- std.

    Raises:
        UserError: results of one line were trained on different labels under one name.
    """
    found = dict(_by_cell(runs))
    lines = [
        "| data set | init | " + " | ".join(matrix.splits) + " |",
        "| --- " * (2 + len(matrix.splits)) + "|",
    ]
    for place in matrix.places:
        for init in matrix.inits:
            columns = []
            for split in matrix.splits:
                cells = [Cell(place, init, split, seed) for seed in matrix.seeds]
                keys = [(c.folder(runs).name, c.protocol, c.labels) for c in cells]
                columns.append(_spread([found[key] for key in keys if key in found]))
            lines.append(f"| {place.name} | {init} | " + " | ".join(columns) + " |")
    return "\n".join(lines)


def _check_as_asked(path: Path, cell: Cell, start: Start, settings: tuple[str, ...]) -> None:
    """Refuse a cell that was measured in another way: it would stand beside the new ones."""
    found = read_result(path)
    base = PROBES.load(cell.protocol).settings(found.dataset, start.init == "random")
    asked = {"config": to_plain(override(base, settings)), "voxels": to_plain(start.voxels)}
    asked |= {"init": start.init, "init_epochs": start.epochs}
    stands = {name: getattr(found, name) for name in asked}
    other = differences(stands, asked)
    check(
        not other,
        f"{path}: must have been measured as asked for now, got {'; '.join(other)} (then -> now); "
        "give the same --set and weights, or remove it",
    )


def all_results(runs: Path) -> list[tuple[str, Result]]:
    """Return (run, result) of every result below a folder of runs, the table's with all seeds.

    A line of the table, whose seeds lie in folders of their own, becomes one result of the run
    `table/<init>-<data set>-*`.

    Raises:
        UserError: a file that is not one of ours, or seeds of one cell that were measured
            differently.
    """
    lines: dict[tuple[str, str], list[Result]] = {}
    for folder, result in read_results(runs / TABLE):
        line = f"{TABLE}/{folder.rpartition('-')[0]}-*"
        lines.setdefault((line, result.name), []).append(result)
    merged = [(line, _one_result(seeds)) for (line, _), seeds in lines.items()]
    return [*read_results(runs), *merged]


def _one_result(seeds: list[Result]) -> Result:
    """Return the results of several seeds as one."""
    _check_alike(seeds)
    seen = [result.miou_seen for result in seeds]
    return replace(
        seeds[-1],
        miou=_joined(result.miou for result in seeds),
        miou_seen=None if None in seen else _joined(seen),
        per_class_iou=_joined(result.per_class_iou for result in seeds),
        seeds=_joined(result.seeds for result in seeds),
    )


def _joined(parts) -> tuple:
    return tuple(chain.from_iterable(parts))


def _by_cell(runs: Path) -> Iterator[tuple[tuple[str, str, str], Result]]:
    for run, result in read_results(runs / TABLE):
        yield (run, result.protocol, result.split), result


def _spread(results: list[Result]) -> str:
    if not results:
        return ""
    _check_alike(results)
    values = [result.mean for result in results]
    text = f"{statistics.fmean(values):.2f}"
    spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{text}{spread} ({len(values)})"


def _check_alike(seeds: list[Result]) -> None:
    for name in ("split_hash", "convention", "init", "init_epochs", "config", "classes"):
        values = sorted({str(getattr(result, name)) for result in seeds})
        check(
            len(values) == 1,
            f"table: seeds of one cell must share {name}, got {', '.join(values)}; "
            "remove the older results",
        )


def _start(runs: Path, init: str, recipe: str) -> Start:
    """Return what an init stands for."""
    if init == "random":
        return find_start(runs, "random", recipe, None)
    is_file = Path(init).suffix in (".pt", ".safetensors", ".ckpt", ".pth")
    return find_start(runs / init, "checkpoint", recipe, Path(init) if is_file else None)


def _words(cell: Cell) -> str:
    return f"{cell.place.name}, {cell.init}, {cell.split}, seed {cell.seed}"

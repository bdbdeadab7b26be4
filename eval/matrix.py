"""The whole matrix of a paper's table: data set x labels x init x seed, each cell a result file.

In: names. Out: one run folder per data set, init and seed below `<runs>/table`, and the table as
Markdown. A cell whose result stands is skipped, so a stopped matrix goes on where it was; shards
share nothing but the folder.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from eval.probes.table import PROBES
from eval.protocol import choose_frames, features_of, run_protocol
from eval.results import Result, read_result, read_results
from eval.seeds import TABLE, check_alike
from eval.start import Start, find_start
from pipeline.config import differences, override, to_plain
from pipeline.errors import check
from train.downstream import Downstream
from train.stores import StorePaths, Stores
from train.trainer import Machine

LINEAR = "lp"  # the column of the linear probe on all labels
SEMI = "semi-"  # before a split: all other scans take part without labels
STAGES = ("frames",)  # that a cell reads


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
        UserError: before anything is measured an init that is none or a cell that cannot be
            measured; or a cell that was measured with other settings, data or weights.
    """
    check(
        bool(matrix.inits and matrix.splits and matrix.seeds),
        f"table: must have inits, splits and seeds, got {matrix.inits}, {matrix.splits}",
    )
    starts = {init: _start(runs, init, recipe) for init in matrix.inits}
    for place in matrix.places:
        stores = Stores(StorePaths(place))
        for cell in replace(matrix, places=(place,), seeds=(0,), inits=matrix.inits[:1]).cells():
            config = _config(cell, stores.index.dataset, starts[cell.init], settings)
            choose_frames(stores, cell.labels, STAGES, config.mean_teacher.is_on)
    number, count = shard
    for cell in matrix.cells()[number::count]:
        stores = Stores(StorePaths(cell.place, intensity=starts[cell.init].intensity))
        path = cell.result_path(runs, stores.index.dataset)
        if path.exists():
            _check_as_asked(path, cell, starts[cell.init], settings, stores)
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


def _config(cell: Cell, dataset: str, start: Start, settings: tuple[str, ...]) -> Downstream:
    """Return a cell's protocol."""
    base = PROBES.load(cell.protocol).settings(dataset, start.init == "random", cell.labels)
    return override(base, settings)


def _check_as_asked(
    path: Path, cell: Cell, start: Start, settings: tuple[str, ...], stores: Stores
) -> None:
    """Refuse a cell that was measured in another way: it would stand beside the new ones."""
    found = read_result(path)
    config = _config(cell, found.dataset, start, settings)
    asked = {"config": to_plain(config), "voxels": to_plain(start.voxels)}
    asked |= {"stores": stores.provenance(STAGES), "features": features_of(stores)}
    asked |= {"init": start.init, "init_epochs": start.epochs}
    if found.init_hash or not start.hash:  # results from before it was recorded have none
        asked["init_hash"] = start.hash
    stands = {name: getattr(found, name) for name in asked}
    other = differences(stands, asked)
    check(
        not other,
        f"{path}: must have been measured as asked for now, got {'; '.join(other)} (then -> now); "
        "give the same --set and weights, or remove it",
    )


def _by_cell(runs: Path) -> Iterator[tuple[tuple[str, str, str], Result]]:
    for run, result in read_results(runs / TABLE):
        yield (run, result.protocol, result.split), result


def _spread(results: list[Result]) -> str:
    if not results:
        return ""
    check_alike(results)
    values = [result.mean for result in results]
    text = f"{statistics.fmean(values):.2f}"
    spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{text}{spread} ({len(values)})"


def _start(runs: Path, init: str, recipe: str) -> Start:
    """Return what an init stands for."""
    if init == "random":
        return find_start(runs, "random", recipe, None)
    is_file = Path(init).suffix in (".pt", ".safetensors", ".ckpt", ".pth")
    return find_start(runs / init, "checkpoint", recipe, Path(init) if is_file else None)


def _words(cell: Cell) -> str:
    return f"{cell.place.name}, {cell.init}, {cell.split}, seed {cell.seed}"

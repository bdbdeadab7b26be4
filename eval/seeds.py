"""Results whose seeds lie in folders of their own, as `make table` writes them, put together."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

from eval.results import Result, read_results
from pipeline.errors import check

TABLE = "table"  # their folder among the runs
SAME = ("split_hash", "num_val", "convention", "init", "init_epochs", "init_hash", "config",
        "classes", "voxels", "features", "stores")  # fmt: skip


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
    check_alike(seeds)
    seen = [result.miou_seen for result in seeds]
    return replace(
        seeds[-1],
        miou=_joined(result.miou for result in seeds),
        miou_seen=None if None in seen else _joined(seen),
        per_class_iou=_joined(result.per_class_iou for result in seeds),
        seeds=_joined(result.seeds for result in seeds),
    )


def _joined(parts: Iterable[Iterable]) -> tuple:
    return tuple(chain.from_iterable(parts))


def check_alike(seeds: list[Result]) -> None:
    """Refuse seeds of one cell that were measured differently."""
    for name in SAME:
        values = sorted({str(getattr(result, name)) for result in seeds})
        check(
            len(values) == 1,
            f"table: seeds of one cell must share {name}, got {', '.join(values)}; "
            "remove the older results",
        )

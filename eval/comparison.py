"""Which measured numbers may stand in one column, and the published ones that belong beside them.

In: results. Out: columns. A column holds one protocol on one split of one data set, counted in one
way; two runs that differ in any of these are refused, never mixed.
"""

from dataclasses import dataclass

import numpy as np

from eval.results import Result
from eval.tables.published import Published, published_for
from pipeline.errors import check

SAME = ("split_hash", "num_val", "convention", "classes")  # what the runs of a column share


@dataclass(frozen=True)
class Column:
    """One protocol on one split of one data set."""

    place: str
    dataset: str
    protocol: str
    split: str
    seen_only: bool  # counted over the points that a camera sees (the image teacher's probe)
    runs: dict[str, Result]  # run -> result
    published: tuple[Published, ...]

    @property
    def title(self) -> str:
        """What heads it."""
        where = ", points a camera sees" if self.seen_only else ""
        return f"{self.protocol} {self.split}{where}"

    @property
    def num_absent(self) -> int:
        """Classes that our mean leaves out and the published numbers count as 100."""
        left_out = [r.num_absent for r in self.runs.values() if r.convention != "slidr"]
        return max(left_out, default=0)


def compare(results: list[tuple[str, Result]]) -> list[Column]:
    """Return the columns, in the order of data sets, protocols and number of labels.

    Args:
        results: (run, result).

    Raises:
        UserError: two runs of one column differ in split, validation frames or convention.
    """
    groups: dict[tuple, dict[str, Result]] = {}
    for run, result in results:
        seen_only = result.init.endswith("/teacher")
        key = (result.place, result.dataset, result.protocol, result.split, seen_only)
        groups.setdefault(key, {})[run] = result
    order = sorted(groups, key=lambda key: (key[0], key[2] != "linear", _num_train(groups[key])))
    columns = []
    for key in order:
        place, dataset, protocol, split, seen_only = key
        _check_same(groups[key])
        published = [] if seen_only else published_for(dataset, protocol, split)
        columns.append(
            Column(place, dataset, protocol, split, seen_only, groups[key], tuple(published))
        )
    return columns


def spread(values: tuple[float, ...] | list[float]) -> str:
    """Return 'mean +- std' of some seeds, the mean alone for one."""
    mean = f"{np.mean(values):.2f}"
    return f"{mean} \u00b1 {np.std(values, ddof=1):.2f}" if len(values) > 1 else mean


def _num_train(runs: dict[str, Result]) -> int:
    return min(result.num_train for result in runs.values())


def _check_same(runs: dict[str, Result]) -> None:
    (first_run, first), *others = runs.items()
    for run, result in others:
        for name in SAME:
            one, other = getattr(first, name), getattr(result, name)
            check(
                one == other,
                f"report: {name} of {first.name} must be the same in every run of a column, got "
                f"{one} in {first_run} and {other} in {run}; measure one of them again, or move "
                "its results away",
            )

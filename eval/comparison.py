"""Which measured numbers may stand in one column, and the published ones that belong beside them.

In: results. Out: columns. A column holds one protocol on one split of one data set, counted in one
way; two runs that differ in any of these are refused, never mixed.
"""

from dataclasses import dataclass

import numpy as np

from eval.results import Result
from eval.tables.published import Published, is_as_published, published_for
from pipeline.errors import check

PUBLISHED = "published"  # what marks other people's numbers
# what the runs of a column share
SAME = ("split_hash", "num_val", "convention", "classes", "label_map")


BRACKETS = (
    "Published numbers count absent classes as 100. Where ours leave some out, our number counted "
    "their way stands in brackets."
)


@dataclass(frozen=True)
class Column:
    """One protocol on one split of one data set."""

    place: str
    dataset: str
    taxonomy: str  # '' = the manifest's classes
    protocol: str
    split: str
    seen_only: bool  # counted over the points that a camera sees (the image teacher's probe)
    runs: dict[str, Result]  # run -> result
    published: tuple[Published, ...]

    @property
    def title(self) -> str:
        """What heads it."""
        classes = f", classes {self.taxonomy}" if self.taxonomy else ""
        where = ", points a camera sees" if self.seen_only else ""
        return f"{self.protocol} {self.split}{classes}{where}"

    def shown(self, run: str) -> str:
        """Return a run's mIoU; beside published numbers, in brackets, also counted as they are."""
        result = self.runs[run]
        text = spread(result.miou)
        if self.published and result.counts_otherwise:
            text += f" ({spread(result.miou_as_slidr)})"
        return text


def compare(results: list[tuple[str, Result]]) -> list[Column]:
    """Return the columns, in the order of data sets, protocols and number of labels.

    Args:
        results: (run, result).

    Raises:
        UserError: two runs of one column differ in split, validation frames or convention, or a
            run has two results for one column.
    """
    groups: dict[tuple, dict[str, Result]] = {}
    for run, result in results:
        seen_only = result.init.endswith("/teacher")
        what = (result.place, result.dataset, result.taxonomy, result.protocol, result.split)
        runs = groups.setdefault((*what, seen_only), {})
        check(
            run not in runs,
            f"report: run {run} must have one result of {result.name} on {result.place}, got two; "
            "move the older file away",
        )
        runs[run] = result
    columns = []
    for key, runs in groups.items():
        _check_same(runs)
        columns.append(Column(*key, runs, _published_beside(next(iter(runs.values())))))
    return sorted(
        columns, key=lambda c: (c.place, c.protocol != "linear", _num_train(c.runs), c.taxonomy)
    )


def spread(values: tuple[float, ...] | list[float]) -> str:
    """Return 'mean +- std' of some seeds, the mean alone for one."""
    mean = f"{np.mean(values):.2f}"
    return f"{mean} \u00b1 {np.std(values, ddof=1):.2f}" if len(values) > 1 else mean


def _published_beside(result: Result) -> tuple[Published, ...]:
    """Return the paper's numbers for a column; none where frames or classes are others."""
    data = (result.dataset, result.place, result.num_val, result.taxonomy)
    if result.init.endswith("/teacher") or not is_as_published(*data):
        return ()
    return tuple(published_for(result.dataset, result.protocol, result.split))


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

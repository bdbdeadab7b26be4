"""Charts of results: bars per class, a few-shot curve, bars of robustness; no display needed."""

import numpy as np
from matplotlib.figure import Figure

from eval.comparison import Column
from eval.corruptions.table import CORRUPTIONS
from eval.results import Result
from eval.robustness import RobustnessResult
from eval.tables.published import robustness_baseline
from eval.view import render

SHARES = {"1pct": 1, "5pct": 5, "10pct": 10, "25pct": 25, "half": 50, "full": 100}  # % of labels
MAX_BARS = 8  # runs in one chart; more cannot be told apart


def in_charts(runs: list) -> list[list]:
    """Return runs in as many parts as charts are needed."""
    return [runs[start : start + MAX_BARS] for start in range(0, len(runs), MAX_BARS)]


def class_bars(column: Column, runs: list[tuple[str, Result]]) -> bytes:
    """Return a PNG of the IoU of every class, one bar per run, whiskers = std over seeds.

    Args:
        column: what the runs measured.
        runs: (run, result) to show, at most MAX_BARS.
    """
    classes = runs[0][1].classes
    figure = Figure(figsize=(12, 4.2), dpi=90, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(runs)
    for number, (run, result) in enumerate(runs):
        mean, std = _over_seeds(result)
        at = np.arange(len(classes)) + (number - (len(runs) - 1) / 2) * width
        low = np.minimum(std, mean)  # an IoU has no values below 0
        axes.bar(at, mean, width, yerr=[low, std], label=run, error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(classes)), classes, rotation=40, ha="right")
    axes.set(ylabel="IoU (%)", title=f"{column.place}: {column.title}", xlim=_around(len(classes)))
    axes.set_ylim(0, min(100, max(10, axes.get_ylim()[1])))
    figure.legend(fontsize=8, ncols=2, loc="outside lower center")
    return render(figure)


def few_shot_curve(columns: list[Column]) -> bytes:
    """Return a PNG of mIoU over the share of labels: ours solid, published dashed.

    Args:
        columns: of one data set, fine-tuning only.
    """
    figure = Figure(figsize=(8, 4.6), dpi=90, layout="constrained")
    axes = figure.subplots()
    for run in dict.fromkeys(run for column in columns for run in column.runs):
        found = [(SHARES[c.split], c.runs[run]) for c in columns if run in c.runs]
        at, means = [share for share, _ in found], [result.mean for _, result in found]
        stds = [result.std for _, result in found]
        axes.errorbar(at, means, stds, marker="o", capsize=3, label=run)
    for method in dict.fromkeys(row.method for column in columns for row in column.published):
        found = [
            (SHARES[c.split], row.value)
            for c in columns
            for row in c.published
            if row.method == method
        ]
        axes.plot(*zip(*found, strict=True), "x--", linewidth=1, label=f"{method} (published)")
    axes.set_xscale("log")
    axes.set_xticks(list(SHARES.values()), [str(share) for share in SHARES.values()], minor=False)
    axes.minorticks_off()
    axes.set_xlim(0.85, 118)
    axes.set(xlabel="labels (%)", ylabel="mIoU (%)", title=f"{columns[0].place}: fine-tuning")
    axes.legend(fontsize=8)
    return render(figure)


def robustness_bars(found: list[tuple[str, RobustnessResult]]) -> bytes:
    """Return a PNG of the mIoU under each corruption, mean of severities, whiskers = their range.

    Args:
        found: (run, result) on one data set, at most MAX_BARS; the baseline's bars come last where
            they apply.
    """
    figure = Figure(figsize=(12, 4.2), dpi=90, layout="constrained")
    axes = figure.subplots()
    kinds = list(CORRUPTIONS)
    with_baseline = found[0][1].dataset == "nuscenes"
    width = 0.8 / (len(found) + with_baseline)
    start = -0.4 + width / 2
    for number, (run, result) in enumerate(found):
        values = np.array([result.miou[kind] for kind in kinds])
        mean = values.mean(axis=1)
        whiskers = np.abs(np.stack([values.min(axis=1), values.max(axis=1)]) - mean)
        label = f"{run}, {result.protocol} {result.split} (clean {result.clean:.1f})"
        at = np.arange(len(kinds)) + start + number * width
        bars = axes.bar(at, mean, width, yerr=whiskers, label=label, error_kw={"linewidth": 0.8})
        color = bars.patches[0].get_facecolor()
        axes.axhline(result.clean, color=color, linewidth=0.7, linestyle=":")
    if with_baseline:
        baseline = robustness_baseline()
        at = np.arange(len(kinds)) + start + len(found) * width
        values = [baseline[kind] for kind in kinds]
        axes.bar(at, values, width, color="0.7", label="Robo3D's baseline (published)")
    axes.set_xticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    title = f"{found[0][1].place}: corrupted scans (dotted: clean)"
    axes.set(ylabel="mIoU (%)", title=title, xlim=_around(len(kinds)))
    axes.set_ylim(0, min(100, max(10, axes.get_ylim()[1])))
    figure.legend(fontsize=8, ncols=2, loc="outside lower center")
    return render(figure)


def _around(count: int) -> tuple[float, float]:
    """Return limits that leave half a group of bars to either side."""
    return -0.6, count - 0.4


def _over_seeds(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and std of the IoU [K] over seeds; 0 where a class is absent in all of them."""
    values = np.ma.masked_invalid(np.array(result.per_class_iou, float))
    std = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return values.mean(axis=0).filled(0), np.ma.filled(std, 0)

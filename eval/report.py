"""One self-contained HTML page of what was measured: tables, charts, pictures, and their origin."""

from pathlib import Path

import numpy as np

from eval.charts import SHARES, class_bars, few_shot_curve, in_charts
from eval.comparison import BRACKETS, PUBLISHED, Column, compare, spread
from eval.page import document, fit, images, note, sections, table
from eval.published_page import published_tables
from eval.results import Result
from eval.robustness import RobustnessResult, read_robustness
from eval.robustness_page import robustness_charts, robustness_origin, robustness_tables
from eval.seeds import all_results
from eval.view import Picture, confusion_page, curves_page, has_curves
from pipeline.errors import check
from pipeline.files import write_atomically
from train.run_folder import METRICS, read_metrics

_PUBLISHED_NOTE = (
    "Other people's measurements, in percent, copied from the places named; LP = linear probe, "
    "1% = fine-tuned on that share of the labels. None of them was measured here."
)
CONVENTIONS = {
    "present": "mIoU is the mean over the classes that occur (absent ones left out)",
    "slidr": "mIoU counts a class that does not occur as 100, as SLidR does",
}


def write_report(path: Path, runs: Path, pictures: Path, scenes: list[Picture], about: str) -> Path:
    """Write the page and return its path.

    Args:
        path: HTML file to make.
        runs: folder of runs; every result file below it is shown.
        pictures: folder of PNG pages that stage one drew.
        scenes: pages of predictions, similarities and superpixel sources.
        about: where the data came from, one line.

    Raises:
        UserError: no result file at all, one that lacks a field, or two runs in one column that
            were not measured alike.
    """
    results, columns, corrupted = check_runs(runs)
    stage_one = [_page_of_stage_one(page) for page in sorted(pictures.glob("*.png"))]
    confusion = [_confusion(run, result) for run, result in results]
    charts = [*_few_shot(columns), *(bars for column in columns for bars in _bars(column))]
    groups = fit(
        [charts, robustness_charts(corrupted), _curves(runs), stage_one, scenes, confusion]
    )
    charts, bars, curves, stage_one, scenes, confusion = groups
    parts = {
        "Downstream results": [*comparison_tables(columns), *images(charts, "")],
        "Every result": [_score_table(results)],
        "IoU per class (%)": _class_tables(results),
        "Robustness": [*robustness_tables(runs, corrupted), *images(bars, "")],
        "Pretraining": images(curves, "No pretraining run in this folder."),
        "What stage one made": images(stage_one, "No pictures; run 'make pictures' to draw some."),
        "Superpixel sources, similarity, predictions": images(
            scenes, "No result on this data set."
        ),
        "Confusion": ["<div class=pairs>", *images(confusion, ""), "</div>"],
        "Published tables": [note(_PUBLISHED_NOTE), *published_tables()],
        "Where each number came from": [_origin_table(results), *robustness_origin(corrupted)],
    }
    page = ["<h1>Selkie report</h1>", note(about), *sections(parts)]
    write_atomically(path, document("Selkie report", page).encode())
    return path


def check_runs(
    runs: Path,
) -> tuple[list[tuple[str, Result]], list[Column], list[tuple[str, RobustnessResult]]]:
    """Return all results, their columns and what was measured on corrupted scans.

    Raises:
        UserError: as `write_report`.
    """
    results = all_results(runs)
    check(bool(results), f"{runs}: must hold results, got none; run 'make probe' first")
    return results, compare(results), read_robustness(runs)


def comparison_tables(columns: list[Column]) -> list[str]:
    """Return one table per data set: our runs, then the paper's numbers, marked as published."""
    parts = []
    for place in dict.fromkeys(column.place for column in columns):
        here = [column for column in columns if column.place == place]
        head, rows, published = comparison_rows(here)
        parts.append(f"<h3>{place}</h3>" + table(head, rows, "", published))
        conventions = sorted({r.convention for column in here for r in column.runs.values()})
        said = "; ".join(CONVENTIONS[name] for name in conventions)
        most = max(len(r.seeds) for column in here for r in column.runs.values())
        counted = f"mean \u00b1 standard deviation over seeds (at most {most})"
        parts.append(note(f"mIoU in percent; {counted}; {said}."))
        if any(column.published for column in here):
            parts.append(
                note(
                    "Rows marked as published are other people's measurements, copied from the "
                    f"place named. {BRACKETS}"
                )
            )
    return parts


def comparison_rows(columns: list[Column]) -> tuple[list[str], list[list[str]], tuple[int, ...]]:
    """Return head, rows and the numbers of the published rows for the columns of one data set."""
    head = ["start", *(column.title for column in columns), "run, or source"]
    runs = {run: r for column in columns for run, r in column.runs.items()}
    rows = []
    for run, result in runs.items():
        cells = [column.shown(run) if run in column.runs else "\u2013" for column in columns]
        rows.append([_start(result), *cells, run])
    num_ours = len(rows)
    methods = dict.fromkeys((p.method, p.source) for column in columns for p in column.published)
    for method, source in methods:
        values = [
            {(p.method, p.source): p.value for p in column.published}.get((method, source))
            for column in columns
        ]
        cells = ["\u2013" if value is None else f"{value:.2f}" for value in values]
        rows.append([f"{method} ({PUBLISHED})", *cells, source])
    return head, rows, tuple(range(num_ours, len(rows)))


def _score_table(results: list[tuple[str, Result]]) -> str:
    head = ["protocol", "data", "labels", "start", "mIoU (%)", "seen by a camera", "seeds",
            "frames train / val", "absent classes", "network", "engine", "run"]  # fmt: skip
    rows = []
    for run, result in results:
        classes = f" ({result.taxonomy})" if result.taxonomy else ""
        cells = [result.protocol, result.place + classes, result.split, _start(result)]
        seen = "\u2013" if result.miou_seen is None else f"{np.mean(result.miou_seen):.2f}"
        cells += [spread(result.miou), seen, str(len(result.seeds))]
        cells += [f"{result.num_train} / {result.num_val}", str(result.num_absent)]
        rows.append([*cells, result.backbone, result.engine, run])
    return table(head, rows, "dense words")


def _start(result: Result) -> str:
    """Return what a network started from."""
    count = result.init_epochs
    return result.init + (f", {count} epoch{'s' if count > 1 else ''}" if count else "")


def _class_tables(results: list[tuple[str, Result]]) -> list[str]:
    """Return one table for each list of classes: data sets have their own."""
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for run, result in results:
        per_seed = np.array(result.per_class_iou, float)  # None becomes NaN
        means = np.ma.masked_invalid(per_seed).mean(0).filled(np.nan)
        name = f"{run}: {result.protocol} {result.split}"
        cells = ["\u2013" if np.isnan(v) else f"{v:.1f}" for v in means]
        tables.setdefault(tuple(result.classes), []).append([name, *cells])
    return [table(["run", *classes], rows, "dense upright") for classes, rows in tables.items()]


def _origin_table(results: list[tuple[str, Result]]) -> str:
    head = ["result", "labels", "split hash", "seeds", "checkpoint", "stores", "settings"]
    rows = []
    for run, r in results:
        stores = ", ".join(f"{name} {value}" for name, value in r.stores.items())
        settings = ", ".join(f"{k}={v}" for k, v in r.config.items() if k != "seed")
        seeds = ", ".join(map(str, r.seeds))
        cells = [f"{run}/results/{r.name}.json", r.split, r.split_hash, seeds]
        rows.append([*cells, r.init_hash or "\u2013", stores, settings])
    return table(head, rows, "origin")


def _page_of_stage_one(page: Path) -> Picture:
    """Return a page as `python -m pipeline pictures` names it, row000000-superpixels-slic.png."""
    row, _, what = page.stem.partition("-")
    number = row.removeprefix("row").lstrip("0") or "0"
    words = {"projections": "points over the images", "segments": "segments at t and t+n"}
    title = f"{words.get(what, what.replace('-', ', ', 1))}: frame {number} of the index"
    return Picture(title if what else page.stem, page.read_bytes())


def _few_shot(columns: list[Column]) -> list[Picture]:
    found = []
    tuned = [c for c in columns if c.protocol == "few_shot" and c.split in SHARES]
    for place, taxonomy in dict.fromkeys((c.place, c.taxonomy) for c in tuned):
        here = [c for c in tuned if (c.place, c.taxonomy) == (place, taxonomy)]
        classes = f", classes {taxonomy}" if taxonomy else ""
        title = f"{place}{classes}: mIoU over the share of labels"
        found.append(Picture(title, few_shot_curve(here)))
    return found


def _bars(column: Column) -> list[Picture]:
    title = f"{column.place}: {column.title}, IoU per class"
    parts = in_charts(list(column.runs.items()))
    return [Picture(title, class_bars(column, runs)) for runs in parts]


def _curves(runs: Path) -> list[Picture]:
    pictures = []
    for path in sorted(runs.glob(f"*/{METRICS}")):
        lines, name = read_metrics(path.parent), path.parent.name
        if has_curves(lines):
            pictures.append(Picture(f"losses of {name}", curves_page(lines, name)))
    return pictures


def _confusion(run: str, result: Result) -> Picture:
    title = f"{run}: {result.protocol} {result.split}"
    return Picture(title, confusion_page(np.array(result.confusion), list(result.classes), title))

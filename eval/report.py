"""One self-contained HTML page of what was measured: tables, charts, pictures, and their origin."""

from pathlib import Path

import numpy as np

from eval.charts import SHARES, class_bars, few_shot_curve, robustness_bars
from eval.comparison import Column, compare, spread
from eval.corruptions.table import CORRUPTIONS
from eval.matrix import all_results
from eval.page import document, fit, images, note, sections, table
from eval.published_page import published_tables
from eval.results import Result
from eval.robustness import RobustnessResult, read_robustness
from eval.tables.published import PublishedRobustness, published_robustness
from eval.view import Picture, confusion_page, curves_page
from pipeline.errors import check
from pipeline.files import write_atomically
from train.run_folder import METRICS, read_metrics

PUBLISHED = "published"
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
    charts = [*_few_shot(columns), *(_bars(column) for column in columns)]
    groups = fit(
        [charts, _robustness_charts(corrupted), _curves(runs), stage_one, scenes, confusion]
    )
    charts, bars, curves, stage_one, scenes, confusion = groups
    parts = {
        "Downstream results": [*comparison_tables(columns), *images(charts, "")],
        "Every result": [_score_table(results)],
        "IoU per class (%)": _class_tables(results),
        "Robustness": [*_robustness_tables(corrupted), *images(bars, "")],
        "Pretraining": images(curves, "No pretraining run in this folder."),
        "What stage one made": images(stage_one, "No pictures; run 'make pictures' to draw some."),
        "Superpixel sources, similarity, predictions": images(
            scenes, "No result on this data set."
        ),
        "Confusion": ["<div class=pairs>", *images(confusion, ""), "</div>"],
        "Published tables": [note(_PUBLISHED_NOTE), *published_tables()],
        "Where each number came from": [_origin_table(results)],
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
            absent = max(column.num_absent for column in here)
            parts.append(
                note(
                    "Rows marked as published are other people's measurements, copied from the "
                    f"place named; they count absent classes as 100, ours leave {absent} out."
                )
            )
    return parts


def comparison_rows(columns: list[Column]) -> tuple[list[str], list[list[str]], tuple[int, ...]]:
    """Return head, rows and the numbers of the published rows for the columns of one data set."""
    head = ["start", *(column.title for column in columns), "run, or source"]
    runs = {run: r for column in columns for run, r in column.runs.items()}
    rows = []
    for run, result in runs.items():
        cells = [
            spread(column.runs[run].miou) if run in column.runs else "\u2013" for column in columns
        ]
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
        cells = [result.protocol, result.place, result.split, _start(result)]
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


def _robustness_tables(found: list[tuple[str, RobustnessResult]]) -> list[str]:
    """Return the tables of corrupted scans: ours by data set, then the published rows."""
    if not found:
        return ["<p>No network was measured on corrupted scans; run 'make robustness'.</p>"]
    kinds = [kind.replace("_", " ") for kind in CORRUPTIONS]
    head = ["run", "clean", "mCE", "mRR", *kinds, "scans"]
    parts = []
    for place in dict.fromkeys(result.place for _, result in found):
        here = [(run, result) for run, result in found if result.place == place]
        rows = [_robustness_row(run, result) for run, result in here]
        num_ours = len(rows)
        if here[0][1].dataset == "nuscenes":
            rows += [_published_row(row) for row in published_robustness()]
            text = (
                "mCE is against Robo3D's MinkUNet18 on nuScenes-C. Scans corrupted on the fly are "
                "made from the published formulas; they are not the released ones."
            )
        else:
            text = (
                "mCE is against a baseline measured on nuScenes-C: on other data it only compares "
                "these runs with each other."
            )
        parts.append(
            f"<h3>{place}</h3>" + table(head, rows, "dense", tuple(range(num_ours, len(rows))))
        )
        parts.append(note(f"mIoU in percent, mean of three severities. {text}"))
    return parts


def _robustness_row(run: str, found: RobustnessResult) -> list[str]:
    shares = [f"{np.mean(found.miou[kind]):.2f}" for kind in CORRUPTIONS]
    scores = [f"{value:.2f}" for value in (found.clean, found.mce, found.mrr)]
    name = f"{run}, {found.protocol} {found.split}"
    scans = ", ".join([str(found.num_frames), found.corrupted, *found.settings])
    return [name, *scores, *shares, scans]


def _published_row(row: PublishedRobustness) -> list[str]:
    shares = [f"{row.miou[kind]:.2f}" for kind in CORRUPTIONS]
    name = f"{row.method}, {row.protocol} ({PUBLISHED})"
    return [name, "\u2013", f"{row.mce:.2f}", f"{row.mrr:.2f}", *shares, row.source]


def _origin_table(results: list[tuple[str, Result]]) -> str:
    head = ["result", "labels", "split hash", "seeds", "stores", "settings"]
    rows = []
    for run, r in results:
        stores = ", ".join(f"{name} {value}" for name, value in r.stores.items())
        settings = ", ".join(f"{k}={v}" for k, v in r.config.items() if k != "seed")
        seeds = ", ".join(map(str, r.seeds))
        rows.append(
            [f"{run}/results/{r.name}.json", r.split, r.split_hash, seeds, stores, settings]
        )
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
    for place in dict.fromkeys(column.place for column in columns):
        tuned = [
            c
            for c in columns
            if c.place == place and c.protocol == "few_shot" and c.split in SHARES
        ]
        if tuned:
            found.append(Picture(f"{place}: mIoU over the share of labels", few_shot_curve(tuned)))
    return found


def _bars(column: Column) -> Picture:
    return Picture(f"{column.place}: {column.title}, IoU per class", class_bars(column))


def _robustness_charts(found: list[tuple[str, RobustnessResult]]) -> list[Picture]:
    charts = []
    for place in dict.fromkeys(result.place for _, result in found):
        here = [(run, result) for run, result in found if result.place == place]
        charts.append(Picture(f"{place}: mIoU under corruption", robustness_bars(here)))
    return charts


def _curves(runs: Path) -> list[Picture]:
    pictures = []
    for path in sorted(runs.glob(f"*/{METRICS}")):
        lines, name = read_metrics(path.parent), path.parent.name
        if lines:
            pictures.append(Picture(f"losses of {name}", curves_page(lines, name)))
    return pictures


def _confusion(run: str, result: Result) -> Picture:
    title = f"{run}: {result.protocol} {result.split}"
    return Picture(title, confusion_page(np.array(result.confusion), list(result.classes), title))

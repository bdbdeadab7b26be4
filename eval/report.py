"""One self-contained HTML page of what was measured: tables, curves, pictures, and their origin."""

import base64
import html
from pathlib import Path

import numpy as np

from eval.results import Result, read_results
from eval.view import Picture, confusion_page, curves_page
from pipeline.errors import check
from pipeline.files import write_atomically
from train.run_folder import METRICS, read_metrics

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em;
       color: #222; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .8em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; } th { background: #f4f4f4; }
.wide { overflow-x: auto; } img { max-width: 100%; } .note { color: #555; font-size: 90%; }
.upright th:not(:first-child) span { writing-mode: vertical-rl; transform: rotate(180deg);
       white-space: nowrap; }
"""


def write_report(path: Path, runs: Path, pictures: Path, scenes: list[Picture], about: str) -> Path:
    """Write the page and return its path.

    Args:
        path: HTML file to make.
        runs: folder of runs; every result file below it is shown.
        pictures: folder of PNG pages that stage one drew.
        scenes: pages of predictions.
        about: where the data came from, one line.

    Raises:
        UserError: no result file at all.
    """
    results = read_results(runs)
    check(bool(results), f"{runs}: must hold results, got none; run 'make probe' first")
    stage_one = [Picture(page.stem, page.read_bytes()) for page in sorted(pictures.glob("*.png"))]
    parts = [
        "<h1>Selkie report</h1>",
        f"<p class=note>{html.escape(about)}</p>",
        "<h2>Downstream results</h2>",
        _score_table(results),
        "<h2>IoU per class (%)</h2>",
        *_class_tables(results),
        "<h2>Pretraining</h2>",
        *_images(_curves(runs), "No pretraining run in this folder."),
        "<h2>What stage one made</h2>",
        *_images(stage_one, "No pictures; run 'make pictures' to draw some."),
        "<h2>Predictions and errors</h2>",
        *_images(scenes, "No result on this data set."),
        "<h2>Confusion</h2>",
        *_images([_confusion(run, result) for run, result in results], ""),
    ]
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Selkie report</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style>"
        f"<body>{''.join(parts)}</body></html>"
    )
    write_atomically(path, page.encode())
    return path


def _score_table(results: list[tuple[str, Result]]) -> str:
    head = ["protocol", "data", "labels", "start", "mIoU (%)", "seeds", "frames train / val"]
    head += ["absent classes", "network", "engine", "run"]
    rows = []
    for run, result in results:
        spread = f" \u00b1 {result.std:.2f}" if len(result.miou) > 1 else ""
        epochs = f", {result.init_epochs} epochs" if result.init_epochs else ""
        cells = [result.protocol, result.place, result.split, result.init + epochs]
        cells += [f"{result.mean:.2f}{spread}", str(len(result.seeds))]
        cells += [f"{result.num_train} / {result.num_val}", str(result.num_absent)]
        rows.append([*cells, result.backbone, result.engine, run])
    note = {
        "present": "mIoU is the mean over the classes that occur (absent ones left out)",
        "slidr": "mIoU counts a class that does not occur as 100, as SLidR does",
    }
    conventions = sorted({result.convention for _, result in results})
    return _table(head, rows) + f"<p class=note>{'; '.join(note[c] for c in conventions)}.</p>"


def _class_tables(results: list[tuple[str, Result]]) -> list[str]:
    """Return one table for each list of classes: data sets have their own."""
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for run, result in results:
        per_seed = np.array(result.per_class_iou, float)  # None becomes NaN
        means = np.ma.masked_invalid(per_seed).mean(0).filled(np.nan)
        name = f"{run}: {result.protocol} {result.split}"
        cells = ["\u2013" if np.isnan(v) else f"{v:.1f}" for v in means]
        tables.setdefault(tuple(result.classes), []).append([name, *cells])
    return [_table(["run", *classes], rows, "upright") for classes, rows in tables.items()]


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


def _table(head: list[str], rows: list[list[str]], kind: str = "") -> str:
    lines = ["".join(f"<th><span>{html.escape(cell)}</span></th>" for cell in head)]
    lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class=wide><table class='{kind}'>{body}</table></div>"


def _images(pictures: list[Picture], otherwise: str) -> list[str]:
    if not pictures:
        return [f"<p>{html.escape(otherwise)}</p>"]
    figures = []
    for picture in pictures:
        data, caption = base64.b64encode(picture.png).decode(), html.escape(picture.title)
        figures.append(
            f"<figure><img alt='{caption}' src='data:image/png;base64,{data}'>"
            f"<figcaption class=note>{caption}</figcaption></figure>"
        )
    return figures

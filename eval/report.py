"""One self-contained HTML page of what was measured: tables, curves, pictures, and their origin."""

import base64
import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.results import Result, read_results
from eval.view import Prediction, confusion_page, curves_page, prediction_page
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
.class { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
"""


@dataclass(frozen=True)
class Scene:
    """A validation frame to show with the predictions of one run."""

    run: str
    title: str
    prediction: Prediction


def write_report(
    path: Path, runs: Path, pictures: Path, scenes: list[Scene], colors: np.ndarray, about: str
) -> Path:
    """Write the page and return its path.

    Args:
        path: HTML file to make.
        runs: folder of runs; every result file below it is shown.
        pictures: folder of PNG pages that stage one drew.
        scenes: predictions to draw.
        colors: [K, 3] uint8 class colors.
        about: where the data came from, one line.

    Raises:
        UserError: no result file at all.
    """
    results = read_results(runs)
    check(bool(results), f"{runs}: must hold results, got none; run 'make probe' first")
    classes = list(results[0][1].classes)
    parts = [
        "<h1>Selkie report</h1>",
        f"<p class=note>{html.escape(about)}</p>",
        "<h2>Downstream results</h2>",
        _score_table(results),
        "<h2>IoU per class (%)</h2>",
        _class_table(results),
        "<h2>Pretraining</h2>",
        *_curves(runs),
        "<h2>What stage one made</h2>",
        *[_image(page.read_bytes(), page.stem) for page in sorted(pictures.glob("*.png"))],
        "<h2>Predictions and errors</h2>",
        *[_image(prediction_page(s.prediction, colors, classes, s.title), s.title) for s in scenes],
        "<h2>Confusion</h2>",
        *[_confusion(run, result) for run, result in results],
    ]
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Selkie report</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style>"
        f"<body>{''.join(parts)}</body></html>"
    )
    write_atomically(path, page.encode())
    return path


def _score_table(results: list[tuple[str, Result]]) -> str:
    rows = []
    for run, result in results:
        spread = f" &plusmn; {result.std:.2f}" if len(result.miou) > 1 else ""
        rows.append(
            [
                result.protocol,
                result.dataset,
                result.split,
                result.init,
                f"<b>{result.mean:.2f}</b>{spread}",
                str(len(result.seeds)),
                f"{result.num_train} / {result.num_val}",
                str(result.num_absent),
                result.backbone,
                result.engine,
                run,
            ]
        )
    head = ["protocol", "data", "labels", "start", "mIoU (%)", "seeds", "frames train / val"]
    head += ["absent classes", "network", "engine", "run"]
    note = {
        "present": "mIoU is the mean over the classes that occur (absent ones left out)",
        "slidr": "mIoU counts a class that does not occur as 100, as SLidR does",
    }
    conventions = sorted({result.convention for _, result in results})
    return _table(head, rows) + f"<p class=note>{'; '.join(note[c] for c in conventions)}.</p>"


def _class_table(results: list[tuple[str, Result]]) -> str:
    classes = list(results[0][1].classes)
    rows = []
    for run, result in results:
        per_seed = np.array(
            [[np.nan if v is None else v for v in seed] for seed in result.per_class_iou], float
        )
        absent = np.isnan(per_seed).all(0)
        means = np.where(
            absent, np.nan, np.nansum(per_seed, 0) / np.maximum((~np.isnan(per_seed)).sum(0), 1)
        )
        name = f"{run}: {result.protocol} {result.split}"
        rows.append([name, *["&ndash;" if np.isnan(v) else f"{v:.1f}" for v in means]])
    return _table(["run", *[f"<span class=class>{html.escape(c)}</span>" for c in classes]], rows)


def _curves(runs: Path) -> list[str]:
    parts = []
    for path in sorted(runs.glob(f"*/{METRICS}")):
        lines = read_metrics(path.parent)
        if lines:
            name = path.parent.name
            parts.append(_image(curves_page(lines, name), f"losses of {name}"))
    return parts or ["<p>No pretraining run in this folder.</p>"]


def _confusion(run: str, result: Result) -> str:
    title = f"{run}: {result.protocol} {result.split}"
    page = confusion_page(np.array(result.confusion), list(result.classes), title)
    return _image(page, title)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<div class=wide><table>{''.join(lines)}</table></div>"


def _image(png: bytes, text: str) -> str:
    data = base64.b64encode(png).decode()
    caption = html.escape(text)
    return (
        f"<figure><img alt='{caption}' src='data:image/png;base64,{data}'>"
        f"<figcaption class=note>{caption}</figcaption></figure>"
    )

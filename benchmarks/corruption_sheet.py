"""Draw all 24 corruptions of one scan of the synthetic city: docs/corruptions.png.

    python -m benchmarks.corruption_sheet [--version tiny] [--stores stores] [--out FILE]

Never draw a recording here: the picture is part of the repository.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from eval.corrupted import read_scan
from eval.corruptions.table import CORRUPTIONS, SEVERITIES, corrupt
from eval.scan import CROSSTALK, FOG, GROUND, SNOW, Scan
from eval.view import render
from pipeline.errors import check
from pipeline.files import write_atomically
from pipeline.index import find_folder
from train.stores import StorePaths, Stores

CITY = "synthetic"
RANGE_M = 35.0
MADE, FLOOR, REST = (0.85, 0.1, 0.1), (0.55, 0.62, 0.7), (0.1, 0.25, 0.45)


def draw_sheet(scan: Scan, key: str) -> bytes:
    """Return a PNG with one row per corruption; points that a corruption made are red."""
    figure = Figure(figsize=(8.4, 16.5), dpi=70, layout="constrained")
    panels = figure.subplots(len(list(CORRUPTIONS)), 1 + len(SEVERITIES))
    for row, kind in zip(panels, CORRUPTIONS, strict=True):
        versions = [("clean", scan)] + [(s, corrupt(scan, kind, s, key)) for s in SEVERITIES]
        for axes, (name, shown) in zip(row, versions, strict=True):
            colors = np.full((len(shown.points), 3), REST)
            colors[np.isin(shown.labels, GROUND)] = FLOOR
            colors[np.isin(shown.labels, (FOG, SNOW, CROSSTALK))] = MADE
            axes.scatter(*shown.points[:, :2].T, s=0.35, c=colors, linewidths=0)
            axes.set(xlim=(-RANGE_M, RANGE_M), ylim=(-RANGE_M, RANGE_M), xticks=[], yticks=[])
            axes.set_aspect("equal")
            axes.set_title(f"{name}: {len(shown.points)} points", fontsize=7.5)
        row[0].set_ylabel(kind.replace("_", " "), fontsize=9)
    return render(figure)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", type=Path, default=Path("stores"))
    parser.add_argument("--version", default="tiny")
    parser.add_argument("--row", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/corruptions.png"))
    options = parser.parse_args()
    stores = Stores(StorePaths(find_folder(options.stores, CITY, options.version)))
    check(options.row < len(stores.index), f"--row: must be below {len(stores.index)}")
    scan = read_scan(stores, options.row)
    write_atomically(options.out, draw_sheet(scan, stores.index.frame_ids[options.row]))
    print(options.out)


if __name__ == "__main__":
    main()

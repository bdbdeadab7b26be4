"""Networks on corrupted scans as the report shows them: a table and a chart per set of conditions.

In: robustness results. Out: HTML and charts. Numbers stand in one column only where scans, levels,
frames, classes and convention are the same; others get a table of their own.
"""

from pathlib import Path

import numpy as np

from eval.charts import in_charts, robustness_bars
from eval.comparison import PUBLISHED
from eval.corruptions.table import CORRUPTIONS
from eval.page import note, table
from eval.predictor import hash_network
from eval.robustness import RobustnessResult
from eval.tables.published import PublishedRobustness, is_as_published, published_robustness
from eval.view import Picture

Found = list[tuple[str, RobustnessResult]]  # (run, result)


def robustness_tables(runs: Path, found: Found) -> list[str]:
    """Return the tables of corrupted scans: ours by conditions, then the published rows.

    Args:
        runs: folder of runs, whose networks may have been measured anew since.
        found: results.
    """
    if not found:
        return ["<p>No network was measured on corrupted scans; run 'make robustness'.</p>"]
    kinds = [kind.replace("_", " ") for kind in CORRUPTIONS]
    parts = []
    for here in _by_conditions(found):
        first = here[0][1]
        rows = [_row(runs, run, result) for run, result in here]
        num_ours = len(rows)
        text = (
            "mCE is against a baseline measured on nuScenes-C: on other data it only compares "
            "these runs with each other."
        )
        if first.dataset == "nuscenes":
            text = (
                "mCE is against Robo3D's MinkUNet18 on nuScenes-C. Scans corrupted on the fly are "
                "made from the published formulas; they are not the released ones."
            )
        data = (first.dataset, first.place, first.num_frames, first.taxonomy)
        if first.dataset == "nuscenes" and is_as_published(*data) and not first.settings:
            rows += [_published_row(row) for row in published_robustness()]
        head = ["run", "clean", "mCE", "mRR", *kinds, "source"]
        shown = table(head, rows, "dense", tuple(range(num_ours, len(rows))))
        parts.append(f"<h3>{_title(first)}</h3>{shown}")
        parts.append(note(f"mIoU in percent, mean of three severities. {text}"))
    return parts


def robustness_charts(found: Found) -> list[Picture]:
    """Return one chart per set of conditions."""
    return [
        Picture(f"{_title(here[0][1])}: mIoU under corruption", robustness_bars(part))
        for here in _by_conditions(found)
        for part in in_charts(here)
    ]


def robustness_origin(found: Found) -> list[str]:
    """Return the table of where each network on corrupted scans came from; none without any."""
    head = ["result", "labels", "split hash", "seed of the network", "its checkpoint", "frames",
            "stores", "engine"]  # fmt: skip
    rows = []
    for run, r in found:
        stores = ", ".join(f"{name} {value}" for name, value in r.stores.items())
        cells = [f"{run}/robustness/{r.name}.json", r.split, r.split_hash, str(r.network_seed)]
        rows.append([*cells, r.network_hash, f"{r.num_frames}, {r.rows_hash}", stores, r.engine])
    return [table(head, rows, "origin")] if rows else []


def _by_conditions(found: Found) -> list[Found]:
    groups: dict[tuple, Found] = {}
    for run, result in found:
        groups.setdefault(result.conditions, []).append((run, result))
    return list(groups.values())


def _title(first: RobustnessResult) -> str:
    classes = f", classes {first.taxonomy}" if first.taxonomy else ""
    levels = f", {', '.join(first.settings)}" if first.settings else ""
    return f"{first.place}{classes}: {first.num_frames} frames, {first.corrupted}{levels}"


def _row(runs: Path, run: str, found: RobustnessResult) -> list[str]:
    shares = [f"{np.mean(found.miou[kind]):.2f}" for kind in CORRUPTIONS]
    scores = [f"{value:.2f}" for value in (found.clean, found.mce, found.mrr)]
    checkpoint = runs / run / "results" / f"{found.name}.pt"
    is_old = checkpoint.is_file() and hash_network(checkpoint) != found.network_hash
    source = f"an earlier network than {found.name}.pt now" if is_old else "measured here"
    return [f"{run}, {found.protocol} {found.split}", *scores, *shares, source]


def _published_row(row: PublishedRobustness) -> list[str]:
    shares = [f"{row.miou[kind]:.2f}" for kind in CORRUPTIONS]
    name = f"{row.method}, {row.protocol} ({PUBLISHED})"
    return [name, "\u2013", f"{row.mce:.2f}", f"{row.mrr:.2f}", *shares, row.source]

"""The published tables as they were printed, for every report: whatever the data, there they are.

In: published.csv. Out: one HTML table per place that printed one; the paper's own are open, those
of others fold out.
"""

import html

from eval.page import table
from eval.tables.published import SEAL_TABLES, Published, read_published

PAPER = f"repo {SEAL_TABLES}"
SHORT = {
    "LP (100% labels, frozen backbone)": "LP",
    "fine-tune ": "",
    ", mean of 3 severities": "",
    "100% fine-tune, ": "",
    "8 corruptions": "",
}


def published_tables() -> list[str]:
    """Return the HTML of every published table."""
    by_source: dict[str, list[Published]] = {}
    for row in read_published():
        by_source.setdefault(row.source, []).append(row)
    is_paper = {source: source.startswith("README") and PAPER in source for source in by_source}
    parts = [_table(source, rows) for source, rows in by_source.items() if is_paper[source]]
    others = [_table(source, rows) for source, rows in by_source.items() if not is_paper[source]]
    text = "Tables of other papers and repositories, and what users reported"
    return [*parts, f"<details><summary>{text}</summary>{''.join(others)}</details>"]


def _table(source: str, rows: list[Published]) -> str:
    """Return one table: a line per method, a column per data set, protocol and metric."""
    columns = list(dict.fromkeys((r.dataset, r.protocol, r.metric) for r in rows))
    values = {(r.method, r.dataset, r.protocol, r.metric): r.value for r in rows}
    lines = [
        [f"{method} (published)", *(_shown(values.get((method, *column))) for column in columns)]
        for method in dict.fromkeys(r.method for r in rows)
    ]
    head = ["start", *(_title(*column) for column in columns)]
    body = table(head, lines, "dense", tuple(range(len(lines))))
    return f"<h3>{html.escape(source)} (published)</h3>{body}"


def _title(dataset: str, protocol: str, metric: str) -> str:
    """Return what heads a column; a metric is named where it is not the mIoU."""
    for long, short in SHORT.items():
        protocol = protocol.replace(long, short)
    return " ".join(
        word for word in (dataset, protocol, "" if metric == "mIoU" else metric) if word
    )


def _shown(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.2f}"

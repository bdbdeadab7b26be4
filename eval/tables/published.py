"""Published results: what papers and their repositories print, with the place each comes from.

In: published.csv, one number per line. Out: numbers by our names for data sets, protocols and
splits. They are other people's measurements and are always shown as such.
"""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from eval.corruptions.table import CORRUPTIONS

FILE = Path(__file__).with_name("published.csv")
SEAL_TABLES = "youquanl/Segment-Any-Point-Cloud"  # the tables of the paper, as its repository has
BASELINE = "MinkUNet18 cr1.0 (mCE baseline)"  # Robo3D's, for mCE
LINEAR = "LP (100% labels, frozen backbone)"
SPLITS = {
    "fine-tune 1%": "1pct",
    "fine-tune 5%": "5pct",
    "fine-tune 10%": "10pct",
    "fine-tune 25%": "25pct",
    "fine-tune half": "half",
    "fine-tune full": "full",
    "fine-tune 100%": "full",
}
ROBUSTNESS_PROTOCOLS = {"LP": "linear", "100% fine-tune": "few_shot"}


@dataclass(frozen=True)
class Data:
    """What published numbers were measured on, in our terms."""

    name: str  # as printed
    place: str  # folder of our stores for it
    num_val: int | None  # frames; None = not known for sure


DATA = {
    "nuscenes": Data("nuScenes", "nuscenes-v1.0-trainval", 6019),
    "semantickitti": Data("SemanticKITTI", "semantickitti", 4071),
    "waymo": Data("Waymo Open", "waymo-top", None),
    "synth4d": Data("Synth4D", "synth4d-nuscenes_synth", None),
    "scribblekitti": Data("ScribbleKITTI", "scribblekitti", 4071),
    "rellis3d": Data("RELLIS-3D", "rellis3d-os1", None),
    "semanticposs": Data("SemanticPOSS", "semanticposs", None),
    "semanticstf": Data("SemanticSTF", "semanticstf", None),
    "synlidar": Data("SynLiDAR", "synlidar", None),
    "daps3d": Data("DAPS-3D", "daps3d-daps-2", 109),
}


@dataclass(frozen=True)
class Published:
    """One number that somebody else measured."""

    method: str
    dataset: str  # as printed
    protocol: str
    metric: str  # mIoU, mCE, mRR; percent
    value: float
    source: str


@dataclass(frozen=True)
class PublishedRobustness:
    """One row of a robustness table."""

    method: str
    protocol: str  # 'linear' or 'few_shot' (on all labels)
    mce: float
    mrr: float
    miou: dict[str, float]  # corruption -> mean of the three severities
    source: str


@functools.cache
def read_published() -> tuple[Published, ...]:
    """Return every published number."""
    with FILE.open(newline="") as file:
        return tuple(
            Published(**{**line, "value": float(line["value"])}) for line in csv.DictReader(file)
        )


def is_as_published(dataset: str, place: str, num_val: int, taxonomy: str) -> bool:
    """Return whether we measured on the data, whole, and the classes that published numbers have.

    Args:
        dataset: our name.
        place: folder of the stores.
        num_val: validation frames.
        taxonomy: '' = the data set's own classes.
    """
    data = DATA.get(dataset)
    if data is None or taxonomy or place != data.place:
        return False
    return data.num_val in (None, num_val)


def published_for(dataset: str, protocol: str, split: str) -> list[Published]:
    """Return the paper's own numbers for one of our cells, in the order of its tables.

    Args:
        dataset: our name; others than the paper's have none.
        protocol: 'linear' or 'few_shot'.
        split: our name of the labels.
    """
    wanted = (
        {LINEAR} if protocol == "linear" and split in ("train", "full") else
        {name for name, ours in SPLITS.items() if protocol == "few_shot" and ours == split}
    )  # fmt: skip
    return [
        row
        for row in read_published()
        if dataset in DATA
        and row.dataset == DATA[dataset].name
        and row.protocol in wanted
        and row.metric == "mIoU"
        and row.source.startswith("README")
        and SEAL_TABLES in row.source
    ]


def robustness_baseline() -> dict[str, float]:
    """Return Robo3D's baseline mIoU on nuScenes-C: 'clean' and each corruption."""
    rows = [r for r in read_published() if (r.method, r.dataset) == (BASELINE, "nuScenes-C")]
    found = {_kind(row.protocol): row.value for row in rows if row.metric == "mIoU"}
    return {"clean": found[None]} | {kind: found[kind] for kind in CORRUPTIONS}


def published_robustness() -> list[PublishedRobustness]:
    """Return the rows of the published nuScenes-C tables that have all ten numbers."""
    groups: dict[tuple[str, str, str], dict[str | None, float]] = {}
    for row in read_published():
        start = row.protocol.split(",")[0]
        if row.dataset == "nuScenes-C" and start in ROBUSTNESS_PROTOCOLS:
            key = (row.method, ROBUSTNESS_PROTOCOLS[start], row.source)
            name = _kind(row.protocol) if row.metric == "mIoU" else row.metric
            groups.setdefault(key, {})[name] = row.value
    return [
        PublishedRobustness(
            method, protocol, found["mCE"], found["mRR"], {k: found[k] for k in CORRUPTIONS}, source
        )
        for (method, protocol, source), found in groups.items()
        if {"mCE", "mRR", *CORRUPTIONS} <= found.keys()
    ]


def _kind(protocol: str) -> str | None:
    """Return our name of the corruption in 'LP, Wet ground, mean of 3 severities'; None: clean."""
    words = protocol.removesuffix(", mean of 3 severities").split(", ")[-1]
    name = words.lower().replace(" ", "_").replace("-", "_")
    return name if name in set(CORRUPTIONS) else None

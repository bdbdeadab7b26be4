"""Result files: `runs/<run>/results/<protocol>-<dataset>-<split>.json`, one per measured number."""

import json
import math
import statistics
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError, check
from pipeline.files import write_atomically

NORMALIZED = "normalized intensity"  # in `features`


@dataclass(frozen=True)
class Result:
    """One protocol on one split; lists run over the seeds, percent throughout."""

    protocol: str
    dataset: str
    place: str  # name of the stores' folder, `<data set>[-<version>]`
    split: str
    split_hash: str  # of the frame ids trained on
    init: str  # '<recipe>[/<superpixel source>]', 'random', or '<recipe>/teacher'
    init_epochs: int  # of pretraining behind the checkpoint; 0 = random
    miou: tuple[float, ...]  # [seeds]
    miou_seen: tuple[float, ...] | None  # [seeds], over points a camera sees; None = not known
    per_class_iou: tuple[tuple[float | None, ...], ...]  # [seeds][K]; None = absent
    classes: tuple[str, ...]
    num_absent: int  # classes in neither truth nor prediction
    convention: str
    seeds: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]  # [K][K] of the last seed, rows = truth
    num_train: int  # frames
    num_val: int
    config: dict[str, Any]
    backbone: str
    engine: str
    features: str
    voxels: dict[str, Any]
    stores: dict[str, str]  # store -> config hash
    init_hash: str = ""  # of the checkpoint's file; '' = none, or measured before it was recorded
    taxonomy: str = ""  # an alternative of the data set's manifest; '' = its default classes

    @property
    def mean(self) -> float:
        """Mean mIoU over the seeds."""
        return statistics.fmean(self.miou)

    @property
    def std(self) -> float:
        """Standard deviation over the seeds (of a sample; 0 for one seed)."""
        return statistics.stdev(self.miou) if len(self.miou) > 1 else 0.0

    @property
    def counts_otherwise(self) -> bool:
        """Whether our mean leaves out classes that published numbers count as 100."""
        absent = any(_absent(iou) for line in self.per_class_iou for iou in line)
        return absent and self.convention != "slidr"

    @property
    def miou_as_slidr(self) -> tuple[float, ...]:
        """Per seed, mIoU as SLidR's code counts: a class in neither truth nor prediction is 100."""
        return tuple(
            statistics.fmean(100.0 if _absent(iou) else iou for iou in line)
            for line in self.per_class_iou
        )

    @property
    def label_map(self) -> str:
        """Hash of the map from raw labels to classes."""
        return self.stores.get("label_map", "")

    @property
    def name(self) -> str:
        """File name of the result without its ending; its last predictor is called the same."""
        dataset = f"{self.dataset}@{self.taxonomy}" if self.taxonomy else self.dataset
        return f"{self.protocol}-{dataset}-{self.split}"


def write_result(folder: Path, result: Result) -> Path:
    """Write a result file atomically and return its path."""
    content = asdict(result) | {"mean": result.mean, "std": result.std}
    path = folder / "results" / f"{result.name}.json"
    write_atomically(path, json.dumps(_without_nan(content), indent=1).encode())
    return path


def read_results(runs: Path) -> list[tuple[str, Result]]:
    """Return (run, result) of every result file below a folder of runs.

    Raises:
        UserError: a file that is not one of ours, or lacks a field.
    """
    paths = sorted(runs.glob("*/results/*.json"))
    return [(path.parents[1].name, read_result(path)) for path in paths]


def read_result(path: Path) -> Result:
    """Return one result file.

    Raises:
        UserError: not one of ours, or it lacks a field.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: must be a result file, got {error}; remove it") from error
    known = [f.name for f in fields(Result) if f.default is MISSING or f.name in content]
    result = Result(**{name: take_field(path, content, name) for name in known})
    num_classes, num_seeds = len(result.classes), len(result.seeds)
    for name, shape in (
        ("miou", (num_seeds,)),
        ("per_class_iou", (num_seeds, num_classes)),
        ("confusion", (num_classes, num_classes)),
    ):
        check_numbers(path, name, getattr(result, name), shape, name == "per_class_iou")
    return result


def check_numbers(
    path: Path, name: str, value: Any, shape: tuple[int, ...], may_lack: bool = False
) -> None:
    """Check that a field of a JSON file holds that many numbers.

    Args:
        path: the file.
        name: of the field.
        value: its content.
        shape: wanted.
        may_lack: whether null stands for a number that there is none of.

    Raises:
        UserError: it does not.
    """
    try:
        numbers = np.array(value, float)  # null becomes NaN
        fits = (
            numbers.shape == shape and 0 not in shape and (may_lack or np.isfinite(numbers).all())
        )
    except (TypeError, ValueError):  # other types, lists of unequal lengths
        fits = False
    check(
        bool(fits),
        f"{path}: {name} must be {list(shape)} numbers, got {str(value)[:40]}; measure that run "
        "again",
    )


def take_field(path: Path, content: Any, name: str) -> Any:
    """Return a field of a JSON file.

    Raises:
        UserError: no such field, names it and the file.
    """
    check(
        isinstance(content, dict) and name in content,
        f"{path}: must be a result file, got one without the field '{name}'; remove it, or measure "
        "that run again",
    )
    return content[name]


def _absent(iou: float | None) -> bool:
    return iou is None or math.isnan(iou)


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not know, by None."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value

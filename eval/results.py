"""Result files: `runs/<run>/results/<protocol>-<dataset>-<split>.json`, one per measured number."""

import json
import math
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import write_atomically


@dataclass(frozen=True)
class Result:
    """One protocol on one split; lists run over the seeds, percent throughout."""

    protocol: str
    dataset: str
    place: str  # name of the stores' folder, `<data set>[-<version>]`
    split: str
    split_hash: str  # of the training rows
    init: str  # '<recipe>/<superpixel source>' or 'random'
    init_epochs: int  # of pretraining behind the checkpoint; 0 = random
    miou: tuple[float, ...]  # [seeds]
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

    @property
    def mean(self) -> float:
        """Mean mIoU over the seeds."""
        return statistics.fmean(self.miou)

    @property
    def std(self) -> float:
        """Standard deviation over the seeds (of a sample; 0 for one seed)."""
        return statistics.stdev(self.miou) if len(self.miou) > 1 else 0.0

    @property
    def name(self) -> str:
        """File name of the result without its ending; its last predictor is called the same."""
        return f"{self.protocol}-{self.dataset}-{self.split}"


def write_result(folder: Path, result: Result) -> Path:
    """Write a result file atomically and return its path."""
    content = asdict(result) | {"mean": result.mean, "std": result.std}
    path = folder / "results" / f"{result.name}.json"
    write_atomically(path, json.dumps(_without_nan(content), indent=1).encode())
    return path


def read_results(runs: Path) -> list[tuple[str, Result]]:
    """Return (run, result) of every result file below a folder of runs.

    Raises:
        UserError: a file that is not one of ours.
    """
    found = []
    for path in sorted(runs.glob("*/results/*.json")):
        try:
            content = json.loads(path.read_text())
            content.pop("mean"), content.pop("std")
            found.append((path.parents[1].name, Result(**content)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}: must be a result file, got {error}; remove it") from error
    return found


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not know, by None."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value

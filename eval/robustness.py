"""A measured network on clean and corrupted validation scans: 1 + 24 evaluations, mCE and mRR.

In: a predictor and the stores it was measured on. Out: `<run>/robustness/<protocol>-<data set>-
<split>.json`. Corruptions are made on the fly, keyed by frame, so nothing is stored and two
networks see the same bytes.
"""

import dataclasses
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.corrupted import CorruptedStores, check_can_corrupt
from eval.corruptions.table import CORRUPTIONS, SEED, SEVERITIES, check_settings
from eval.predictor import Predictor, as_measured
from eval.protocol import VALIDATION
from eval.results import check_numbers, take_field
from eval.robustness_scores import Robustness, score_robustness
from eval.tables.published import robustness_baseline
from pipeline.errors import UserError, check
from pipeline.files import sha256, write_atomically
from train.evaluate import evaluate
from train.metrics import scores
from train.rows import choose_rows
from train.stores import Stores

FOLDER = "robustness"
ON_THE_FLY = "on the fly"
CORRUPTED_FRAMES = "corrupted/frames.zarr"  # in `stores`, where scans are not made on the fly


@dataclass(frozen=True)
class RobustnessResult:
    """One network under all corruptions, percent throughout."""

    name: str  # of the network's result and checkpoint, without their endings
    protocol: str
    dataset: str
    place: str
    taxonomy: str
    split: str  # labels the network was trained on
    split_hash: str
    init: str
    network_seed: int  # of the network, the last one that was measured
    network_hash: str  # of its checkpoint file
    backbone: str
    engine: str
    features: str
    stores: dict[str, str]  # store -> config hash and version; 'label_map'
    clean: float
    miou: dict[str, list[float]]  # corruption -> light, moderate, heavy
    mce: float
    mrr: float
    convention: str
    num_frames: int
    rows_hash: str  # of the validation rows
    seed: int  # of the corruptions made on the fly
    corrupted: str  # 'on the fly', or the stores that hold the corrupted scans
    settings: tuple[str, ...]  # 'kind.severity.key=value', where levels are not the published

    @property
    def conditions(self) -> tuple:
        """What networks must share whose numbers stand in one column."""
        what = (self.place, self.taxonomy, self.stores.get("label_map"), self.convention)
        frames = (self.num_frames, self.rows_hash, self.stores.get(CORRUPTED_FRAMES))
        return (*what, *frames, self.corrupted, self.seed, self.settings)

    @property
    def scores(self) -> Robustness:
        """Errors and resilience by corruption."""
        return score_robustness(self.clean, self.miou, robustness_baseline())


def run_robustness(
    predictor: Predictor,
    stores: Stores,
    limit: int | None,
    device: str,
    corrupted: Stores | None = None,
    settings: tuple[str, ...] = (),
) -> tuple[RobustnessResult, Path]:
    """Evaluate a network on clean and on 24 corrupted versions of the validation frames.

    Args:
        predictor: network.
        stores: the data set it was measured on; read with that measurement's classes and intensity.
        limit: at most this many frames, evenly spaced; None = all.
        device: torch device.
        corrupted: stores of nuScenes-C, one split per corruption and severity ('fog-light'); None =
            corrupt the frames on the fly.
        settings: 'kind.severity.key=value' in place of the published levels, on the fly only.

    Raises:
        UserError: other classes than the stores', or a data set that cannot be corrupted.
    """
    result, stores = predictor.result, as_measured(stores, predictor.result)
    corrupted = corrupted and as_measured(corrupted, result)
    _check_can_run(predictor, stores, corrupted, settings)
    rows = _choose(stores, VALIDATION, limit)
    clean, miou = _measure(predictor, stores, rows, corrupted, limit, settings, device)
    scored = score_robustness(clean, miou, robustness_baseline())
    found = RobustnessResult(
        name=result.name,
        protocol=result.protocol,
        dataset=result.dataset,
        place=stores.paths.folder.resolve().name,
        taxonomy=result.taxonomy,
        split=result.split,
        split_hash=result.split_hash,
        init=result.init,
        network_seed=result.seeds[-1],
        network_hash=predictor.hash,
        backbone=result.backbone,
        engine=predictor.engine,
        features=result.features,
        stores=_provenance(stores, corrupted),
        clean=clean,
        miou=miou,
        mce=scored.mce,
        mrr=scored.mrr,
        convention=stores.store("frames").attributes["metric"],
        num_frames=len(rows),
        rows_hash=sha256(rows.astype("<i8").tobytes())[:16],
        seed=SEED,
        corrupted=corrupted.paths.folder.resolve().name if corrupted else ON_THE_FLY,
        settings=settings,
    )
    path = predictor.path.parents[1] / FOLDER / f"{result.name}.json"
    write_atomically(path, json.dumps(dataclasses.asdict(found), indent=1).encode())
    return found, path


def _provenance(stores: Stores, corrupted: Stores | None) -> dict[str, str]:
    """Return the hashes of what was read."""
    found = stores.provenance(("frames",))
    if corrupted:
        (found[CORRUPTED_FRAMES],) = corrupted.hashes(("frames",)).values()
    return found


def _measure(
    predictor: Predictor,
    stores: Stores,
    rows: np.ndarray,
    corrupted: Stores | None,
    limit: int | None,
    settings: tuple[str, ...],
    device: str,
) -> tuple[float, dict[str, list[float]]]:
    """Return the mIoU on clean scans, and of each corruption at its three severities."""
    network, count, grid = predictor.network, len(predictor.classes), predictor.voxels
    convention = stores.store("frames").attributes["metric"]

    def measure(opened: Stores, rows: np.ndarray, what: str) -> float:
        found = evaluate(network, opened, rows, count, grid, device, what)
        return scores(found.points, convention).miou

    clean = measure(stores, rows, "clean")
    miou: dict[str, list[float]] = {kind: [] for kind in CORRUPTIONS}
    for kind, severity in itertools.product(CORRUPTIONS, SEVERITIES):
        if corrupted is None:
            opened, chosen = CorruptedStores(stores.paths, kind, severity, settings), rows
        else:
            opened, chosen = corrupted, _choose(corrupted, f"{kind}-{severity}", limit)
        miou[kind].append(measure(opened, chosen, f"{kind} {severity}"))
    return clean, miou


def _check_can_run(
    predictor: Predictor, stores: Stores, corrupted: Stores | None, settings: tuple[str, ...]
) -> None:
    """Refuse levels, classes and data sets that do not go together, before an hour of work."""
    check_settings(settings)
    check(
        not (settings and corrupted),
        "--set: must come without --corrupted, whose scans are made already; leave one out",
    )
    for opened in [stores] if corrupted is None else [stores, corrupted]:
        _check_classes(predictor, opened)
    if corrupted is None:
        check_can_corrupt(stores)


def _choose(stores: Stores, split: str, limit: int | None) -> np.ndarray:
    """Return the rows of a split, at most `limit` of them, evenly spaced."""
    rows = choose_rows(stores, split, ("frames",))
    return rows[np.linspace(0, len(rows) - 1, min(limit or len(rows), len(rows))).astype(int)]


def _check_classes(predictor: Predictor, stores: Stores) -> None:
    classes = stores.taxonomy["classes"]
    check(
        list(predictor.classes) == list(classes),
        f"{predictor.path}: checkpoint must have the {len(classes)} classes of "
        f"{stores.paths.folder}, got {len(predictor.classes)} ({predictor.classes[0]}, ...); give "
        "the data set it was trained on",
    )


def read_robustness(runs: Path) -> list[tuple[str, RobustnessResult]]:
    """Return (run, result) of every robustness file below a folder of runs.

    Raises:
        UserError: a file that is not one of ours, or lacks a field.
    """
    found = []
    for path in sorted(runs.glob(f"*/{FOLDER}/*.json")):
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{path}: must be JSON, got {error}; remove it") from error
        names = [field.name for field in dataclasses.fields(RobustnessResult)]
        values = {name: take_field(path, content, name) for name in names}
        values["settings"] = tuple(values["settings"])
        for kind in CORRUPTIONS:
            check_numbers(path, f"miou.{kind}", take_field(path, values["miou"], kind), (3,))
        found.append((path.parents[1].name, RobustnessResult(**values)))
    return found


def describe(found: RobustnessResult) -> list[str]:
    """Return the lines that a terminal shows."""
    scored = found.scores
    lines = [f"clean {found.clean:.2f} % mIoU on {found.num_frames} frames"]
    for kind, values in found.miou.items():
        shown = "  ".join(f"{value:6.2f}" for value in values)
        lines.append(
            f"{kind:16s}{shown}   CE {scored.errors[kind]:6.2f}  RR {scored.resilience[kind]:6.2f}"
        )
    lines.append(f"mCE {found.mce:.2f}  mRR {found.mrr:.2f}  (percent)")
    if found.dataset != "nuscenes":
        lines.append(
            "the baseline of mCE was measured on nuScenes-C: on other data mCE only compares our "
            "own runs with each other"
        )
    return lines

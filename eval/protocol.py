"""Run a downstream protocol on a checkpoint (or on random weights) and write its result file."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from eval.probes.table import PROBES
from eval.results import NORMALIZED, Result, write_result
from eval.start import Start, load_network
from pipeline.config import override, to_plain
from pipeline.errors import check
from pipeline.files import sha256
from pipeline.index import Index
from train.checkpoint import save_checkpoint
from train.downstream import Downstream
from train.evaluate import Confusions, evaluate
from train.finetune import train_downstream
from train.lifted import LIFTED_STAGES, evaluate_lifted, train_lifted
from train.metrics import scores
from train.models.minkunet import MinkUNet
from train.recipes import Network
from train.rows import choose_labeled, choose_rows
from train.stores import IntensityScale, Stores
from train.trainer import Machine, load_teacher
from train.weights import assignments

VALIDATION = "val"
_FEATURES = {"slidr": "intensity", "normalized": NORMALIZED}


@dataclass(frozen=True)
class Frames:
    """Which frames are trained and measured on, as rows of the index."""

    rows: np.ndarray  # [R], labeled
    val_rows: np.ndarray  # [R']
    unlabeled: np.ndarray  # [R''], training frames beside the labeled ones, where they are used


@dataclass(frozen=True)
class _Data:
    """What is trained and measured on."""

    stores: Stores
    frames: Frames
    num_classes: int


@dataclass(frozen=True)
class _Task:
    """What is done with it."""

    protocol: str
    split: str
    config: dict[str, Any]
    seeds: tuple[int, ...]
    stages: tuple[str, ...]


def run_protocol(
    run: Path,
    stores: Stores,
    protocol: str,
    split: str,
    start: Start,
    settings: tuple[str, ...],
    seeds: tuple[int, ...],
    machine: Machine,
    keep_network: bool = True,
) -> tuple[Result, Path]:
    """Train on a split, evaluate on the validation frames, write the result file.

    Args:
        run: folder of the run; results go below it.
        stores: the data set.
        protocol: name in the table of probes.
        split: labels to train on.
        start: what the network starts from.
        settings: 'key=value' of the protocol.
        seeds: one training each.
        machine: engine and device.
        keep_network: keep the last seed's trained network beside the result.

    Raises:
        UserError: unknown protocol or key, an empty split, a checkpoint of another network, or
            validation frames without a labeled point.
    """
    index = stores.index
    base = PROBES.load(protocol).settings(index.dataset, start.init == "random", split)
    config = override(base, settings)
    stages = LIFTED_STAGES if start.teacher else ("frames",)
    check(
        not start.teacher or config.freeze,
        f"--init teacher: protocol must be linear, got {protocol}; the teacher is not trained",
    )
    frames = choose_frames(stores, split, stages, config.mean_teacher.is_on)
    measure = _measure_teacher if start.teacher else _measure_network
    data = _Data(stores, frames, len(stores.taxonomy["classes"]))
    measured = [measure(start, data, replace(config, seed=seed), machine) for seed in seeds]
    module, last = measured[-1]
    check(
        bool(last.points.any()),
        f"{stores.paths.folder}: split '{VALIDATION}' must have labeled points, got none; "
        "use a version of the data set that has labels there",
    )
    task = _Task(protocol, split, to_plain(config), seeds, stages)
    result = _result(task, start, data, measured, machine.engine)
    if isinstance(module, MinkUNet) and keep_network:
        _save_predictor(run, result, module, start.network, stores.intensity_scale)
    return result, write_result(run, result)


def choose_frames(
    stores: Stores, split: str, stages: tuple[str, ...], with_unlabeled: bool
) -> Frames:
    """Return the frames that a protocol trains and is measured on.

    Args:
        stores: the data set.
        split: labels to train on; its frames without labels are left out, and counted.
        stages: stages whose stores must hold each frame.
        with_unlabeled: also give the other training frames.

    Raises:
        UserError: a split without usable frames, or no training frame beside the labeled ones.
    """
    rows, val_rows = choose_labeled(stores, split, stages), choose_rows(stores, VALIDATION, stages)
    if not with_unlabeled:
        return Frames(rows, val_rows, rows[:0])
    unlabeled = np.setdiff1d(choose_rows(stores, "train", stages), rows)
    check(
        len(unlabeled) > 0,
        "semi-supervised: the training split must hold frames beside the labeled ones, got none; "
        f"choose a smaller split than '{split}', or 'make fewshot'",
    )
    return Frames(rows, val_rows, unlabeled)


def _result(
    task: _Task,
    start: Start,
    data: _Data,
    measured: list[tuple[nn.Module, Confusions]],
    engine: str,
) -> Result:
    """Return what was measured, with everything that decided it."""
    stores, (module, last) = data.stores, measured[-1]
    attributes = stores.store("frames").attributes
    metric = attributes["metric"]
    found = [scores(confusions.points, metric) for _, confusions in measured]
    seen = [confusions.seen for _, confusions in measured]
    return Result(
        protocol=task.protocol,
        dataset=stores.index.dataset,
        place=stores.paths.folder.resolve().name,
        split=task.split,
        split_hash=_hash_frames(stores.index, data.frames.rows),
        init=start.init,
        init_epochs=start.epochs,
        init_hash=start.hash,
        miou=tuple(score.miou for score in found),
        miou_seen=None if seen[-1] is None else tuple(scores(m, metric).miou for m in seen),
        per_class_iou=tuple(score.per_class_iou for score in found),
        classes=tuple(stores.taxonomy["classes"]),
        num_absent=found[-1].num_absent,
        convention=metric,
        seeds=task.seeds,
        confusion=tuple(tuple(line) for line in last.points.tolist()),
        num_train=len(data.frames.rows),
        num_val=len(data.frames.val_rows),
        config=task.config,
        backbone=describe(module),
        engine=engine,
        features="images" if start.teacher else features_of(stores),
        voxels=to_plain(start.voxels),
        stores=stores.provenance(task.stages),
        taxonomy=stores.paths.taxonomy,
    )


def _measure_network(
    start: Start, data: _Data, config: Downstream, machine: Machine
) -> tuple[MinkUNet, Confusions]:
    network, grid = load_network(start, machine, config.seed), start.voxels
    stores, num_classes, device = data.stores, data.num_classes, machine.device
    network = train_downstream(
        network, stores, data.frames.rows, num_classes, grid, config, device, data.frames.unlabeled
    )
    return network, evaluate(network, stores, data.frames.val_rows, num_classes, grid, device)


def _measure_teacher(
    start: Start, data: _Data, config: Downstream, machine: Machine
) -> tuple[nn.Module, Confusions]:
    teacher, augment = load_teacher(start.teacher)[0].to(machine.device), start.teacher.augment
    stores, num_classes, device = data.stores, data.num_classes, machine.device
    final = train_lifted(teacher, stores, data.frames.rows, num_classes, augment, config, device)
    matrix = evaluate_lifted(
        teacher, final, stores, data.frames.val_rows, num_classes, augment, device
    )
    return teacher.network, Confusions(matrix, matrix)


def _hash_frames(index: Index, rows: np.ndarray) -> str:
    """Return a hash of which frames were trained on, whatever rows they have in this index."""
    return sha256("\n".join(sorted(index.frame_ids[row] for row in rows.tolist())).encode())[:16]


def features_of(stores: Stores) -> str:
    """Return what a network sees of every point."""
    return _FEATURES[stores.paths.intensity]


def describe(module: nn.Module) -> str:
    """Return the network's name and size."""
    count = sum(p.numel() for p in module.parameters())
    return f"{type(module).__name__}, {count:,} parameters"


def _save_predictor(
    run: Path, result: Result, network: MinkUNet, config: Network, scale: IntensityScale
) -> None:
    """Keep the last seed's trained network, for pictures, prediction and robustness."""
    settings = assignments(to_plain(replace(config, out_channels=network.out_channels)))
    content = {"network": network.state_dict(), "network_settings": settings}
    content["intensity"] = asdict(scale)
    save_checkpoint(run / "results" / f"{result.name}.pt", content)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return '0,1,2' as numbers.

    Raises:
        UserError: not numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    check(all(p.isdecimal() for p in parts), f"--seeds: must be numbers, got '{text}'; like 0,1,2")
    return tuple(int(part) for part in parts)

"""Which stores and rows are measured; the whole command runs in test_eval_commands.py."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import robustness
from eval.corrupted import CorruptedStores
from eval.corruptions.table import CORRUPTIONS, SEVERITIES
from eval.predictor import Predictor
from eval.results import NORMALIZED
from eval.robustness import describe, read_robustness, run_robustness
from pipeline.errors import UserError
from tests.eval.test_results import RESULT
from tests.train.small_runs import paths_of
from train.evaluate import Confusions
from train.stores import IntensityScale, Stores
from train.voxelize import VoxelConfig

SCALE = IntensityScale(offset=0.0, max=255.0, squash="none")


@pytest.fixture
def opened(stores):
    return Stores(paths_of(stores))


@pytest.fixture
def predictor(opened, tmp_path):
    classes = tuple(opened.store("frames").attributes["classes"])
    path = tmp_path / "run" / "results" / f"{RESULT.name}.pt"
    network, result = torch.nn.Identity(), replace(RESULT, classes=classes)
    return Predictor(network, VoxelConfig(), classes, SCALE, result, path, "abc", "native")


@pytest.fixture
def measured(monkeypatch):
    """Measure nothing: clean scans are perfect, corrupted ones half right; note what was asked."""
    asked = []

    def evaluate(network, stores, rows, num_classes, voxels, device, what):
        asked.append((stores, rows.tolist()))
        share = 1 if len(asked) == 1 else 2
        matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        matrix[0, 0], matrix[0, 1] = 100 // share, 100 - 100 // share
        matrix[1, 1] = 100
        return Confusions(matrix, None)

    monkeypatch.setattr(robustness, "evaluate", evaluate)
    return asked


def test_every_corruption_on_the_fly_sees_the_same_frames(predictor, opened, measured, tmp_path):
    found, path = run_robustness(predictor, opened, 2, "cpu")
    assert path == tmp_path / "run" / "robustness" / f"{RESULT.name}.json"
    assert len(measured) == 25 and {tuple(rows) for _, rows in measured} == {(4, 7)}
    seen = [(s.kind, s.severity) for s, _ in measured[1:] if isinstance(s, CorruptedStores)]
    assert seen == [(kind, severity) for kind in CORRUPTIONS for severity in SEVERITIES]
    # IoU of the two classes 50 / 100 and 100 / 150
    assert found.clean == 100
    assert found.mrr == pytest.approx((50 + 200 / 3) / 2)
    assert read_robustness(tmp_path) == [("run", found)]
    assert (found.name, found.network_seed, found.engine) == (RESULT.name, 2, "native")
    assert found.network_hash == "abc"
    assert found.stores == opened.hashes(("frames",)) | {
        "label_map": opened.taxonomy["label_map_hash"]
    }
    assert describe(found)[0] == "clean 100.00 % mIoU on 2 frames"


def test_scans_of_another_data_set_are_read_by_their_splits(
    predictor, opened, measured, monkeypatch
):
    monkeypatch.setattr(
        robustness,
        "choose_rows",
        lambda stores, split, stages: np.arange(4, 8) if split == "val" else np.array([len(split)]),
    )
    found, _ = run_robustness(predictor, opened, None, "cpu", opened)
    rows = [rows for _, rows in measured]
    assert rows[0] == [4, 5, 6, 7]
    assert rows[1:4] == [[len(f"fog-{severity}")] for severity in SEVERITIES]
    assert found.corrupted == opened.paths.folder.name
    assert found.stores["corrupted/frames.zarr"] == found.stores["frames.zarr"]


def test_levels_that_were_set_are_used_and_recorded(predictor, opened, measured, tmp_path):
    setting = ("crosstalk.heavy.fraction=0.2",)
    found, _ = run_robustness(predictor, opened, 1, "cpu", None, setting)
    assert {s.settings for s, _ in measured[1:]} == {setting}
    assert read_robustness(tmp_path) == [("run", found)] and found.settings == setting
    with pytest.raises(UserError, match="--set: must come without --corrupted"):
        run_robustness(predictor, opened, 1, "cpu", opened, setting)


def test_a_file_without_one_corruption_is_refused(predictor, opened, measured, tmp_path):
    _, path = run_robustness(predictor, opened, 1, "cpu")
    content = json.loads(path.read_text())
    content["miou"]["snow"] = [1.0, None]
    path.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"miou.snow must be \[3\] numbers, got \[1.0, None\]; meas"
    ):
        read_robustness(tmp_path)
    del content["miou"]["fog"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="without the field 'fog'; remove it, or measure that run"):
        read_robustness(tmp_path)


def test_scans_are_fed_as_the_network_was(predictor, opened, measured):
    result = replace(predictor.result, features=NORMALIZED)
    run_robustness(replace(predictor, result=result), opened, 1, "cpu")
    assert {stores.paths.intensity for stores, _ in measured} == {"normalized"}


def test_other_classes_are_refused(predictor, opened, measured):
    other = replace(predictor, classes=("car",))
    with pytest.raises(UserError, match=r"must have the 16 classes of .*, got 1 \(car, ...\)"):
        run_robustness(other, opened, 1, "cpu")
    assert not measured
    assert not Path(predictor.path.parents[1] / "robustness").exists()

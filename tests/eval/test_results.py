import json
import math
from dataclasses import replace

import pytest

from eval.results import Result, read_results, write_result
from pipeline.errors import UserError

RESULT = Result(
    protocol="linear",
    dataset="synthetic",
    place="synthetic-tiny",
    split="1pct",
    split_hash="0123456789abcdef",
    init="seal/slic",
    init_epochs=10,
    init_hash="00112233",
    miou=(30.0, 33.0, 36.0),
    miou_seen=(31.0, 33.0, 35.0),
    per_class_iou=((60.0, float("nan"), 0.0), (66.0, None, 0.0), (72.0, float("nan"), 0.0)),
    classes=("car", "bus", "<truck>"),
    num_absent=1,
    convention="present",
    seeds=(0, 1, 2),
    confusion=((3, 0, 1), (0, 0, 0), (2, 0, 0)),
    num_train=4,
    num_val=2,
    config={"lr": 0.05, "head_lr": None},
    backbone="MinkUNet, 7 parameters",
    engine="native",
    features="intensity",
    voxels={"kind": "cartesian", "size_m": 0.2, "angle_deg": 1.0},
    stores={"frames.zarr": "aa", "label_map": "bb"},
)
# design, section 6
FIELDS = {
    "protocol": str, "dataset": str, "split": str, "split_hash": str, "init": str, "miou": list,
    "per_class_iou": list, "mean": float, "std": float, "convention": str, "seeds": list,
    "config": dict, "backbone": str, "engine": str, "features": str, "stores": dict,
}  # fmt: skip


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def read_strictly(path):
    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_result_file_has_every_field_and_is_json(tmp_path):
    path = write_result(tmp_path / "run", RESULT)
    assert path == tmp_path / "run" / "results" / "linear-synthetic-1pct.json"
    content = read_strictly(path)
    for name, kind in FIELDS.items():
        assert isinstance(content[name], kind), name
    assert content["per_class_iou"][0] == [60.0, None, 0.0]


def test_mean_and_sample_deviation_by_hand():
    assert RESULT.mean == 33
    assert RESULT.std == pytest.approx(math.sqrt((9 + 0 + 9) / 2))
    assert replace(RESULT, miou=(30.0,)).std == 0


def test_what_was_written_is_read(tmp_path):
    write_result(tmp_path / "b", replace(RESULT, split="5pct", place="b"))
    write_result(tmp_path / "a", RESULT)
    (tmp_path / "empty").mkdir()
    found = read_results(tmp_path)
    assert [(run, result.split, result.place) for run, result in found] == [
        ("a", "1pct", "synthetic-tiny"), ("b", "5pct", "b")]  # fmt: skip
    assert found[0][1].mean == RESULT.mean
    assert found[0][1].per_class_iou[0] == [60.0, None, 0.0]


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"mean": 1, "std": 0, "protocol": "x"}'])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "run" / "results" / "x.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(UserError, match="x.json: must be a result file, got .*; remove it"):
        read_results(tmp_path)


def test_what_older_files_did_not_record_is_left_open(tmp_path):
    path = write_result(tmp_path / "run", RESULT)
    content = json.loads(path.read_text())
    del content["init_hash"]
    path.write_text(json.dumps(content))
    assert read_results(tmp_path)[0][1].init_hash == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("miou", []),
        ("miou", [1.0, "x", 2.0]),
        ("miou", [1.0, None, 2.0]),
        ("per_class_iou", None),
        ("per_class_iou", [[1.0, 2.0, 3.0], [1.0]]),
        ("confusion", [[1, 2], [3, 4]]),
    ],
)
def test_numbers_of_another_shape_are_one_clear_line(tmp_path, name, value):
    path = write_result(tmp_path / "run", RESULT)
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(UserError, match=f"json: {name} must be .* numbers, got .*; measure that"):
        read_results(tmp_path)

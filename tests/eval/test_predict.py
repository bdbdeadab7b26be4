"""Scans of any origin in, one class per point out, on a small network with random weights."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from eval.clouds import write_ply
from eval.predict import (
    class_probabilities,
    find_scans,
    predict_files,
    read_points,
    stem_of,
)
from eval.predictor import load_predictor
from eval.results import NORMALIZED, write_result
from pipeline.errors import UserError
from tests.eval.test_results import RESULT
from train.checkpoint import save_checkpoint
from train.recipes import Network
from train.trainer import make_network

SETTINGS = ["widths=8,8,8,8,8,8,8,8,8", "depths=1,1,1,1,1,1,1,1", "out_channels=3"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from pipeline.config import override

    torch.manual_seed(0)
    run = tmp_path_factory.mktemp("run")
    result = replace(RESULT, voxels={"kind": "cartesian", "size_m": 0.5, "angle_deg": 1.0})
    write_result(run, result)
    path = run / "results" / f"{result.name}.pt"
    network = make_network(override(Network(), SETTINGS), "native")
    content = {"network": network.state_dict(), "network_settings": SETTINGS}
    save_checkpoint(path, {**content, "intensity": {"offset": -0.5, "max": 2.0, "squash": "none"}})
    return path


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return load_predictor(checkpoint, "native")


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, 6, (300, 3)), rng.uniform(0, 255, (300, 1))], 1).astype(
        np.float32
    )


def test_every_format_gives_the_same_classes(predictor, points, tmp_path):
    (tmp_path / "in").mkdir()
    points.tofile(tmp_path / "in" / "a.bin")
    np.save(tmp_path / "in" / "b.npy", points)
    np.column_stack([points, np.zeros(300, np.float32)]).tofile(tmp_path / "in" / "c.pcd.bin")
    head = "VERSION .7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
    head += "WIDTH 300\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 300\nDATA binary\n"
    (tmp_path / "in" / "d.pcd").write_bytes(head.encode() + points.tobytes())
    head = "ply\nformat binary_little_endian 1.0\nelement vertex 300\n"
    head += "".join(f"property float {name}\n" for name in ("x", "y", "z", "intensity"))
    (tmp_path / "in" / "e.ply").write_bytes(f"{head}end_header\n".encode() + points.tobytes())
    (tmp_path / "in" / "notes.txt").write_text("no scan")
    scans = find_scans(tmp_path / "in")
    speed = predict_files(predictor, scans, tmp_path / "out", None, 0, "cpu")
    assert (speed.num_scans, speed.num_points) == (5, 1500) and speed.seconds > 0
    found = [np.load(tmp_path / "out" / f"{name}.npy") for name in "abcde"]
    assert all(classes.dtype == np.uint8 and np.array_equal(classes, found[0]) for classes in found)
    expected = class_probabilities(predictor, points, "cpu").argmax(1)
    assert np.array_equal(found[0], expected)
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == ["car", "bus", "<truck>"]


def test_classes_never_replace_a_scan(predictor, points, tmp_path):
    np.save(tmp_path / "b.npy", points)
    points.tofile(tmp_path / "a.bin")
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link"):
        with pytest.raises(UserError, match=r"without the scans, got .*b.npy, which is one; give"):
            predict_files(predictor, find_scans(tmp_path), out, None, 0, "cpu")
    assert np.array_equal(np.load(tmp_path / "b.npy"), points)
    assert not (tmp_path / "a.npy").exists()


def test_a_network_of_normalized_intensity_is_fed_so(predictor, points):
    halved = points.copy()
    halved[:, 3] = np.clip(points[:, 3] / 2, 0, 1)
    result = replace(predictor.result, features=NORMALIZED)
    plain = replace(predictor, scale=replace(predictor.scale, offset=0.0))
    assert np.array_equal(
        class_probabilities(replace(predictor, result=result), points, "cpu"),
        class_probabilities(plain, halved, "cpu"),
    )


def test_the_training_sets_intensity_offset_is_added(predictor, points):
    shifted = points.copy()
    shifted[:, 3] += -0.5
    plain = replace(predictor, scale=replace(predictor.scale, offset=0.0))
    assert np.array_equal(
        class_probabilities(predictor, points, "cpu"), class_probabilities(plain, shifted, "cpu")
    )
    shares = class_probabilities(predictor, points, "cpu").sum(1)
    assert shares == pytest.approx(1, abs=1e-5)


def test_a_ply_has_no_intensity_and_a_point_without_position_no_class(predictor, points, tmp_path):
    write_ply(tmp_path / "x.ply", points, np.zeros((300, 3), np.uint8))
    assert not read_points(tmp_path / "x.ply")[:, 3].any()
    lost = points[:50].copy()
    lost[7, 1] = math.nan
    head = "VERSION .7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
    head += "WIDTH 50\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 50\nDATA binary\n"
    (tmp_path / "y.pcd").write_bytes(head.encode() + lost.tobytes())
    predict_files(predictor, [tmp_path / "y.pcd"], tmp_path / "out", None, 0, "cpu")
    classes = np.load(tmp_path / "out" / "y.npy")
    assert np.flatnonzero(classes == 255).tolist() == [7]


def test_equal_scans_vote_for_what_each_says_alone(predictor, points, tmp_path):
    for name in "abc":
        points.tofile(tmp_path / f"{name}.bin")
    poses = tmp_path / "poses.txt"
    poses.write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 3)
    scans = find_scans(tmp_path)
    predict_files(predictor, scans, tmp_path / "alone", None, 0, "cpu")
    predict_files(predictor, scans, tmp_path / "voted", poses, 1, "cpu")
    for name in "abc":
        alone, voted = (np.load(tmp_path / f / f"{name}.npy") for f in ("alone", "voted"))
        assert np.array_equal(alone, voted)


def test_bad_input_gets_one_clear_line(predictor, checkpoint, points, tmp_path):
    with pytest.raises(UserError, match="scans must exist, got nothing"):
        find_scans(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"must be or hold a scan .*, got 0 other files"):
        find_scans(tmp_path)
    points.tofile(tmp_path / "a.bin")
    np.save(tmp_path / "a.npy", points)
    with pytest.raises(UserError, match="names of their own, got 'a' with several endings"):
        find_scans(tmp_path)
    with pytest.raises(UserError, match="voting needs the poses of the scans; give --poses"):
        predict_files(predictor, [tmp_path / "a.bin"], tmp_path / "out", None, 2, "cpu")
    (tmp_path / "cut.bin").write_bytes(b"123")
    with pytest.raises(UserError, match="cut.bin: points must be a multiple of 16 bytes"):
        predict_files(predictor, [tmp_path / "cut.bin"], tmp_path / "out", None, 0, "cpu")
    assert not (tmp_path / "out").exists()
    assert stem_of(tmp_path / "n.pcd.bin") == "n"


def test_checkpoints_that_cannot_predict_get_one_clear_line(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content.pop("format")
    path = tmp_path / "results" / checkpoint.name
    save_checkpoint(path, content)
    with pytest.raises(UserError, match="must have its result linear-synthetic-1pct.json beside"):
        load_predictor(path, "native")
    fewer = replace(
        RESULT, classes=("a", "b"), per_class_iou=((1.0, 2.0),) * 3, confusion=((1, 0), (0, 1))
    )
    write_result(tmp_path, fewer)
    with pytest.raises(UserError, match="must have the 2 classes of .*, got 3; give the .pt file"):
        load_predictor(path, "native")
    save_checkpoint(path, {"network": {}, "facts": {}})
    with pytest.raises(UserError, match="one without intensity, network_settings; give"):
        load_predictor(path, "native")

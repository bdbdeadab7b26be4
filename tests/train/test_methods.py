"""Every method of the paper's tables takes steps on the tiny city; data sets can be mixed."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from tests.train.small_runs import FOLDER, paths_of, small_recipe
from train.augment import augment_cloud
from train.checkpoint import load_checkpoint
from train.loader import epoch_batches, load_sample
from train.run_folder import read_metrics
from train.stores import StorePaths, Stores
from train.trainer import Machine, Training, pretrain

pytestmark = pytest.mark.usefixtures("one_thread")
NATIVE = Machine("native")
SEAL = {"superpixel_nce", "temporal_nce", "point_to_segment"}


@pytest.fixture(scope="module")
def batch(stores):
    [batch, _] = epoch_batches(paths_of(stores), small_recipe(), np.arange(4), 0, 0)
    return batch


def step(batch, *settings, name="seal_small"):
    training = Training(small_recipe(*settings, name=name), NATIVE)
    training.start_epoch(0)
    before = {k: v.clone() for k, v in training.network.state_dict().items()}
    parts = training.step(batch)
    assert all(np.isfinite(value) for value in parts.values())
    after = training.network.state_dict()
    assert not torch.equal(before["final.kernel"], after["final.kernel"])
    assert not torch.equal(before["conv0p1s1.kernel"], after["conv0p1s1.kernel"])
    return parts


@pytest.mark.parametrize(
    ("name", "parts"),
    [("ppkt_small", {"ppkt"}), ("st_slidr_small", {"st_slidr"}), ("cosine_small", {"cosine"})],
)
def test_a_step_of_each_method(batch, name, parts):
    width = "network.out_channels=128" if name == "cosine_small" else "network.out_channels=16"
    assert set(step(batch, width, name=name)) == parts | {"loss"}


def test_losses_add_up_with_their_weights(batch):
    settings = ("losses.cosine_weight=2", "losses.ppkt_weight=0.5", "network.out_channels=128")
    parts = step(batch, *settings)
    assert set(parts) == SEAL | {"cosine", "ppkt", "loss"}
    expected = sum(parts[name] for name in SEAL) + 2 * parts["cosine"] + 0.5 * parts["ppkt"]
    assert parts["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        ("losses.temporal_nce.anchor=means", "losses.temporal_nce.target_gradient=true"),
        ("losses.temporal_nce.candidates=sample", "losses.temporal_nce.unit_means=false"),
        ("losses.point_to_segment.pooling=max", "losses.point_to_segment.both_frames=true"),
        ("losses.point_to_segment.kind=cosine", "losses.point_to_segment.stop_gradient=true"),
        ("losses.point_to_segment.segments=superpoints", "network.block_bn_momentum=0.05"),
    ],
)
def test_what_the_paper_does_not_state_changes_the_losses(batch, settings):
    changed = step(batch, *settings)
    plain = step(batch)
    assert set(changed) == set(plain)
    assert changed["superpixel_nce"] == plain["superpixel_nce"]
    assert changed["loss"] != plain["loss"]


def test_a_cosine_loss_of_another_width_is_refused_before_anything_is_written(stores, tmp_path):
    recipe = small_recipe(name="cosine_small")  # 16 outputs, the tiny teacher has 128
    with pytest.raises(UserError, match="must be the teacher's 128 .*, got 16"):
        pretrain(tmp_path / "run", paths_of(stores), recipe, NATIVE)
    assert not (tmp_path / "run").exists()


def test_the_successor_may_turn_as_its_frame_does(stores):
    opened, settings = Stores(paths_of(stores)), ("augment.cuboid=0", "voxels.size_m=0.05")
    clouds = {}
    for same in ("true", "false"):
        recipe = small_recipe(*settings, f"augment.same_turn={same}")
        clouds[same] = load_sample(opened, recipe, 0, 0, 1).clouds
    np.testing.assert_array_equal(clouds["true"][0].cells, clouds["false"][0].cells)
    assert not np.array_equal(clouds["true"][1].cells[:50], clouds["false"][1].cells[:50])
    # the same angle and flips: both clouds' extents turn alike
    successor = int(opened.index.successor[1])
    expected = augment_cloud(opened.points(successor), np.random.default_rng((0, 0, 0)))
    low = np.floor(expected[:, :3].astype(np.float64) / 0.05).min(0)
    np.testing.assert_array_equal(clouds["true"][1].cells.min(0), low)


@pytest.fixture
def two(stores, tmp_path):
    """The tiny city twice, the second with other intensities."""
    places = []
    for name in ("one", "two"):
        shutil.copytree(stores / FOLDER, tmp_path / name)
        places.append(StorePaths(tmp_path / name, "oracle"))
    path = tmp_path / "two" / "frames.zarr" / "zarr.json"
    content = json.loads(path.read_text())
    content["attributes"]["intensity_max"] = 51.0
    path.write_text(json.dumps(content))
    return tuple(places)


def test_two_data_sets_in_one_run(two, tmp_path):
    recipe = small_recipe("epochs=1", "dataset_weights=3,1", "batch_size=2")
    with pytest.raises(UserError, match="must be normalized for data sets with other scales"):
        pretrain(tmp_path / "run", two, recipe, NATIVE)
    assert not (tmp_path / "run").exists()
    scaled = tuple(replace(paths, intensity="normalized") for paths in two)
    checkpoint = pretrain(tmp_path / "run", scaled, recipe, NATIVE)
    facts = load_checkpoint(checkpoint)["facts"]
    assert (facts["dataset"], facts["num_frames"]) == ("synthetic+synthetic", 8)
    assert facts["intensity"] == "normalized"
    assert {"one/frames.zarr", "two/frames.zarr"} <= set(facts["stores"])
    assert len(read_metrics(tmp_path / "run")) == 4


def test_intensity_as_the_network_takes_it(two):
    raw, scaled = (Stores(replace(two[1], intensity=kind)) for kind in ("slidr", "normalized"))
    expected = np.minimum(raw.points(0)[:, 3] / 51, 1)
    np.testing.assert_allclose(scaled.points(0)[:, 3], expected, rtol=1e-6)
    assert (expected == 1).any() and (expected < 1).any()
    with pytest.raises(UserError, match="intensity: unknown name 'raw'; .*normalized, slidr"):
        replace(two[0], intensity="raw")


@pytest.mark.parametrize("name", ["ppkt_small", "cosine_small"])
def test_a_method_without_superpixels_needs_none(stores, tmp_path, name):
    shutil.copytree(stores / FOLDER, tmp_path / FOLDER)
    for path in (tmp_path / FOLDER).glob("superpixels-*.zarr"):
        shutil.rmtree(path)
    width = "network.out_channels=128" if name == "cosine_small" else "network.out_channels=16"
    recipe = small_recipe(width, "epochs=1", name=name)
    checkpoint = pretrain(tmp_path / "run", paths_of(tmp_path), recipe, NATIVE)
    facts = load_checkpoint(checkpoint, "facts")["facts"]
    assert facts["source"] == ""
    assert set(facts["stores"]) == {"frames.zarr", "projections.zarr"}
    assert not [line for line in read_metrics(tmp_path / "run") if "unpaired" in line]

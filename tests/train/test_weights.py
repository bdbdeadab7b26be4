"""Weights in and out: every layout gives the same outputs, and what does not fit says so."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import to_plain
from pipeline.errors import UserError
from tests.train.small_runs import small_recipe
from train.__main__ import main
from train.checkpoint import save_checkpoint
from train.convert import convert
from train.models.image_teacher import ImageHead
from train.recipes import Network
from train.trainer import make_network
from train.voxelize import VoxelConfig
from train.weights import read_weights

KEYS = Path(__file__).parent / "models" / "minkunet_keys.txt"
RECIPE = small_recipe("network.depths=1,2,1,1,1,1,2,1")


def published_state(inputs=1, outputs=64):
    """SLidR's keys with shapes of the full size; one number of storage each."""
    state = {}
    for line in KEYS.read_text().splitlines():
        key, shape = line.split("\t")
        sizes = [] if shape == "scalar" else [int(n) for n in shape.split("x")]
        if key == "conv0p1s1.kernel":
            sizes[1] = inputs
        if key.startswith("final."):
            sizes[-1] = outputs
        state[key] = torch.full([1] * len(sizes), 0.5).expand(sizes)
    return state


@pytest.fixture
def own(tmp_path):
    """A checkpoint of a run of ours."""
    torch.manual_seed(5)
    network, head = make_network(RECIPE.network, "native"), ImageHead(128, 16)
    facts = {"recipe": to_plain(RECIPE), "source": "oracle", "intensity": "normalized"}
    content = {"network": network.state_dict(), "head": head.state_dict()}
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {**content, "facts": facts, "next_epoch": 7})
    return path


def outputs(weights):
    """What the network and head K make of a random cloud and map."""
    network = make_network(weights.network, "native").eval()
    network.load_state_dict(weights.state)
    head = ImageHead(128, 16)
    head.load_state_dict(weights.head)
    generator = torch.Generator().manual_seed(0)
    cells = torch.unique(torch.randint(0, 12, (300, 4), generator=generator) // 2, dim=0).int()
    with torch.no_grad():
        points = network(torch.rand(len(cells), 1, generator=generator), cells)
        return points, head(torch.rand(1, 128, 2, 3, generator=generator))


def test_there_and_back_gives_equal_outputs(own, tmp_path):
    path, seen = own, []
    for name in ("one.safetensors", "two.pt", "three.safetensors", "four.pt"):
        found = read_weights(path)
        assert (found.init, found.epochs) == ("seal_small/oracle", 7)
        assert found.intensity == "normalized"
        assert (found.network, found.voxels) == (RECIPE.network, RECIPE.voxels)
        seen.append(outputs(found))
        written = convert(path, tmp_path / name)
        assert [p.name for p in written][0] == name
        path = tmp_path / name
    for points, pixels in seen[1:]:
        assert torch.equal(points, seen[0][0]) and torch.equal(pixels, seen[0][1])
    one, three = (tmp_path / f"{name}.safetensors" for name in ("one", "three"))
    assert one.read_bytes() == three.read_bytes()
    assert json.loads(one.with_suffix(".json").read_text())["epochs"] == 7


def test_the_whole_grid_goes_along(own, tmp_path):
    content = torch.load(own, weights_only=True)
    voxels = {"kind": "cylindrical", "size_m": 0.1, "angle_deg": 0.5}
    content["facts"]["recipe"]["voxels"] = voxels
    torch.save(content, own)
    convert(own, tmp_path / "model.pt")
    assert to_plain(read_weights(tmp_path / "model.pt").voxels) == voxels


def test_slidrs_layout_has_slidrs_keys(own, tmp_path):
    convert(own, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert set(content) == {"model_points", "model_images", "epoch", "config"}
    assert set(content["model_images"]) == {"decoder.0.weight", "decoder.0.bias"}
    assert content["config"]["cylindrical_coordinates"] is False
    assert content["config"]["voxel_size"] == 0.5
    convert(own, tmp_path / "one.safetensors")
    plain = load_file(tmp_path / "one.safetensors")
    assert {k for k in plain if not k.startswith("image_head.")} == set(content["model_points"])


@pytest.mark.parametrize("layout", ["slidr", "seal", "lightning", "data parallel"])
def test_published_files_of_full_size_are_read(tmp_path, layout):
    state, path = published_state(), tmp_path / "minkunet.pt"
    config = {"voxel_size": 0.1, "cylindrical_coordinates": True, "losses": ["x"]}
    images = {"encoder.conv1.weight": torch.zeros(2), "decoder.0.weight": torch.zeros(64, 9, 1, 1)}
    images["decoder.0.bias"] = torch.zeros(64)
    content = {
        "slidr": {"model_points": state, "model_images": images, "epoch": 50, "config": config},
        "seal": {"state_dict": state},
        "lightning": {
            "state_dict": {
                **{f"model_points.{k}": v for k, v in state.items()},
                **{f"model_images.{k}": v for k, v in images.items()},
            },
            "epoch": 49,
        },
        "data parallel": {"model_points": {f"module.{k}": v for k, v in state.items()}},
    }[layout]
    torch.save(content, path)
    found = read_weights(path)
    assert found.network == Network() and found.voxels == VoxelConfig()
    assert found.init == "minkunet/published" and set(found.state) == set(state)
    assert found.intensity == "slidr"
    assert found.epochs == {"slidr": 50, "lightning": 49}.get(layout, 0)
    assert set(found.head) == ({"project.weight", "project.bias"} if layout == "slidr" else set())


def test_a_cartesian_grid_is_taken_from_the_config(tmp_path):
    config = {"voxel_size": 0.05, "cylindrical_coordinates": False}
    torch.save({"model_points": published_state(), "config": config}, tmp_path / "x.pt")
    assert read_weights(tmp_path / "x.pt").voxels == VoxelConfig("cartesian", 0.05)


def without(state, key):
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("state", "message", "listed"),
    [
        (without(published_state(), "bn3.bn.bias"), "1 other keys or shapes", "bn3.bn.bias: None"),
        (
            {**published_state(), "extra.kernel": torch.zeros(3)},
            r"first 'extra.kernel: \[3\] -> None'",
            "extra.kernel: [3] -> None",
        ),
        (
            {**published_state(), "block5.1.conv2.kernel": torch.zeros(1, 2, 2)},
            "1 other keys or shapes",
            "block5.1.conv2.kernel: [1, 2, 2] -> [27, 256, 256]",
        ),
        (published_state(inputs=4), "must take 1 feature per voxel .*, got 4", ""),
        (without(published_state(), "final.kernel"), "must hold a MinkUNet as SLidR names it", ""),
        ({"conv_input.0.weight": torch.zeros(1)}, "got conv_input.0.weight, ..; give a file", ""),
    ],
)
def test_another_network_is_one_clear_line_and_a_table(tmp_path, capsys, state, message, listed):
    torch.save({"state_dict": state}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=message) as error:
        read_weights(tmp_path / "other.pt")
    assert "\n" not in str(error.value)
    assert listed in capsys.readouterr().err


def test_a_card_that_does_not_fit_is_refused(own, tmp_path):
    path = tmp_path / "w.safetensors"
    convert(own, path)
    card = path.with_suffix(".json")
    good = card.read_text()
    card.write_text(good.replace('"depths"', '"depth"'))
    with pytest.raises(UserError, match="settings that this code knows"):
        read_weights(path)
    card.write_text(good.replace('"format": 1', '"format": 2'))
    with pytest.raises(UserError, match="format must be 1, got 2"):
        read_weights(path)
    card.write_text(good)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="must be the file of its card, got other bytes"):
        read_weights(path)
    card.write_text("{}")
    with pytest.raises(UserError, match="'python -m train convert' made, got KeyError"):
        read_weights(path)
    card.unlink()
    with pytest.raises(UserError, match=r"w.json: must exist, got nothing; weights are two files"):
        read_weights(path)


def test_convert_as_a_command(own, tmp_path, here):
    done = here(main, "convert", own, tmp_path / "out.safetensors")
    assert done.code == 0, done.err
    assert done.out.split() == [str(tmp_path / "out.safetensors"), str(tmp_path / "out.json")]
    for target, message in (
        ("out.safetensors", "must not be there yet; choose another name"),
        ("out.ckpt", "must end in .safetensors or .pt (SLidR's layout), got '.ckpt'"),
    ):
        done = here(main, "convert", own, tmp_path / target)
        assert done.code == 2 and message in done.error()
    done = here(main, "convert", tmp_path / "gone.pt", tmp_path / "new.pt")
    assert done.code == 2 and "must exist, got nothing" in done.error()
    assert not (tmp_path / "new.pt").exists()
    done = here(main, "convert", own, tmp_path / "new.pt")
    assert done.code == 0 and "builds MinkUNet34 alone" in done.err


def test_show_prints_what_set_takes(here):
    done = here(main, "show", "st_slidr", "--set", "optimizer.lr=0.1")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    for line in ("optimizer.lr=0.1", "batch_size=16", "losses.st_slidr_weight=1.0"):
        assert line in lines
    done = here(main, "show", "st_slidr", "--set", "optimizer.schedul=x")
    assert done.code == 2 and "did you mean 'schedule'" in done.error()
    done = here(main, "show", "st_slider")
    assert done.code == 2 and "did you mean 'st_slidr'" in done.error()

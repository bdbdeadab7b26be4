from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pipeline.errors import UserError
from train.models.image_teacher import Config, ImageHead, make_teacher
from train.models.resnet50 import ResNet50
from train.models.tiny_network import TinyNetwork


@pytest.mark.parametrize(("kind", "dim"), [("resnet50", 2048), ("tiny", 128), ("raw_rgb", 3)])
@pytest.mark.parametrize("size", [(32, 64), (30, 61)])
def test_a_map_at_a_quarter_of_the_size(kind, dim, size):
    teacher = make_teacher(Config(kind))
    out = teacher(torch.rand(2, 3, *size))
    assert out.shape == (2, dim, 8, 16)
    assert (teacher.dim, teacher.stride) == (dim, 4)


def test_raw_rgb_by_hand():
    images = torch.zeros(1, 3, 4, 8)
    images[:, :, :, 4:] = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    images[:, 0, :2, 4:] += 0.229  # one standard deviation in half of the pixels of the second cell
    out = make_teacher(Config("raw_rgb"))(images)
    expected = torch.tensor([[-0.485 / 0.229, 0.5], [-0.456 / 0.224, 0], [-0.406 / 0.225, 0]])
    assert torch.allclose(out[0, :, 0], expected, atol=1e-5)


def test_training_mode_changes_nothing():
    teacher = make_teacher(Config("tiny"))
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    images = torch.rand(2, 3, 32, 32)
    expected = teacher(images)
    model = torch.nn.ModuleDict({"teacher": teacher})
    model.train()
    for _ in range(3):
        out = teacher(torch.rand(2, 3, 32, 32) * 5)
    assert not out.requires_grad and not any(p.requires_grad for p in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert torch.equal(teacher(images), expected)


def test_random_weights_follow_their_seed_and_leave_the_global_one_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, other = (make_teacher(Config("tiny", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(first(images), second(images))
    assert not torch.equal(first(images), other(images))


def test_resnet_has_the_published_keys_parameters_and_dilations():
    network = ResNet50(dilated=True)
    # torchvision's ResNet-50 has 25,557,032 parameters, 2,049,000 of them in fc
    assert sum(p.numel() for p in network.parameters()) == 25_557_032 - 2_049_000
    keys = network.state_dict().keys()
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight"} <= keys
    assert {"layer4.2.bn3.num_batches_tracked", "layer3.5.conv2.weight"} <= keys
    assert len(keys) == 320 - 2
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    dilations = [[block.conv2.dilation[0] for block in stage] for stage in stages]
    assert dilations == [[1] * 3, [1, 2, 2, 2], [2, 4, 4, 4, 4, 4], [4, 8, 8]]


def test_dilation_equals_striding_where_both_look():
    """A stage of stride 2 is the dilated stage at every second pixel, weights alike."""
    torch.manual_seed(0)
    dilated = ResNet50(dilated=True).eval().double().layer2
    x = torch.randn(1, 256, 16, 16, dtype=torch.float64)
    full = dilated(x)
    for block in dilated:  # undo: stride in the first block, no dilation in the others
        block.conv2.dilation = block.conv2.padding = (1, 1)
    dilated[0].conv2.stride = dilated[0].downsample[0].stride = (2, 2)
    assert torch.allclose(dilated(x), full[:, :, ::2, ::2], atol=1e-9)


def test_loads_a_moco_checkpoint(tmp_path):
    torch.manual_seed(1)
    source = ResNet50(dilated=True)
    state = {f"module.encoder_q.{k}": v for k, v in source.state_dict().items()}
    state |= {f"module.encoder_k.{k}": torch.zeros_like(v) for k, v in source.state_dict().items()}
    state |= {
        "module.queue": torch.zeros(128, 9),
        "module.encoder_q.fc.0.weight": torch.zeros(2048, 2048),
        "module.encoder_q.fc.2.bias": torch.zeros(128),
    }
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": state}, tmp_path / "moco.pth.tar")
    teacher = make_teacher(Config("resnet50", weights=str(tmp_path / "moco.pth.tar")))
    loaded = teacher.network.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in source.state_dict().items())


def test_loads_a_safetensors_file(tmp_path):
    path = tmp_path / "tiny.safetensors"
    network = TinyNetwork()
    save_file(network.state_dict(), path)
    loaded = make_teacher(Config("tiny", weights=str(path), seed=9)).network.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())


def test_the_tiny_weights_of_the_repository_fit_and_are_tiny():
    path = Path(__file__).parents[3] / "weights" / "tiny_teacher.safetensors"
    assert path.stat().st_size < 3e6
    out = make_teacher(Config("tiny", weights=str(path)))(torch.rand(1, 3, 32, 64))
    assert torch.isfinite(out).all()


def test_refuses_missing_files_and_other_networks(tmp_path):
    with pytest.raises(UserError, match="teacher weights must exist, got nothing"):
        make_teacher(Config("tiny", weights=str(tmp_path / "none.safetensors")))
    path = tmp_path / "tiny.safetensors"
    save_file(TinyNetwork().state_dict(), path)
    with pytest.raises(UserError, match=r"keys differ\); give .* teacher.kind, a ResNet50"):
        make_teacher(Config("resnet50", weights=str(path)))


def test_refuses_images_with_the_channel_last():
    with pytest.raises(ValueError, match=r"must be \[I, 3, H, W\], got \[2, 32, 64, 3\]"):
        make_teacher(Config("tiny"))(torch.rand(2, 32, 64, 3))


def test_head_is_a_linear_map_per_cell_and_gets_gradients():
    head = ImageHead(96)
    cells = torch.randn(2, 96, 4, 5)
    out = head(cells)
    expected = F.linear(cells.permute(0, 2, 3, 1), head.project.weight[:, :, 0, 0])
    expected = (expected + head.project.bias).permute(0, 3, 1, 2)
    assert torch.allclose(out, expected, atol=1e-5)
    out.sum().backward()
    assert head.project.weight.grad is not None and head.project.bias.grad is not None

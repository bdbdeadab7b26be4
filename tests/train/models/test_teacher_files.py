"""Every published layout is wrapped around one small encoder; the real ones differ in size only."""

import argparse

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import UserError
from train.models.resnet50 import ResNet50
from train.models.teacher_files import load_weights


class Encoder(nn.Module):
    """A few of ResNet-50's keys."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 1))


def before(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def other(state):
    return {key: torch.zeros_like(value) for key, value in state.items()}


LAYOUTS = {
    "torchvision": lambda s: {**s, "fc.weight": torch.zeros(9, 4), "fc.bias": torch.zeros(9)},
    "torchvision of 2017": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
    "moco v2": lambda s: {
        "epoch": 800,
        "state_dict": {
            **before("module.encoder_q.", {**s, "fc.0.weight": torch.zeros(2)}),
            **before("module.encoder_k.", other(s)),
            "module.queue": torch.zeros(3),
        },
    },
    "moco v3": lambda s: {
        "state_dict": {
            **before("module.base_encoder.", {**s, "fc.0.weight": torch.zeros(2)}),
            **before("module.momentum_encoder.", other(s)),
            "module.predictor.0.weight": torch.zeros(3),
        }
    },
    "simsiam": lambda s: {
        "state_dict": {
            **before("module.encoder.", {**s, "fc.0.weight": torch.zeros(2)}),
            "module.predictor.0.weight": torch.zeros(3),
        }
    },
    "pixpro": lambda s: {
        "model": {
            **before("module.encoder.", s),
            **before("module.encoder_k.", other(s)),
            "module.projector.linear1.weight": torch.zeros(3),
        }
    },
    "swav": lambda s: before(
        "module.",
        {**s, "projection_head.0.weight": torch.zeros(2), "prototypes.weight": torch.zeros(3)},
    ),
    "obow": lambda s: {"meta": {"arch": "resnet50"}, "network": s},
    "dino": lambda s: s,
    "dino in full": lambda s: {
        "student": before("module.backbone.", other(s)),
        "teacher": {**before("backbone.", s), "head.last_layer.weight_g": torch.zeros(3)},
        "epoch": 800,
        "args": argparse.Namespace(lr=1),
    },
    "dinov2": lambda s: {**s, "mask_token": torch.zeros(1, 4)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loads_as_published(tmp_path, layout):
    torch.manual_seed(1)
    source, target = Encoder(), Encoder()
    torch.save(LAYOUTS[layout](source.state_dict()), tmp_path / "file.pth")
    load_weights(target, tmp_path / "file.pth")
    for key, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[key]), key


def refused(path, network=None):
    network = network or Encoder()
    old = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_weights(network, path)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in old.items())
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "bn1.bias"}, "bn1.bias must be [4], got"),
        (lambda s: {**s, "layer9.weight": torch.zeros(2)}, "layer9.weight must be absent, got"),
        (
            lambda s: {**s, "conv1.weight": torch.zeros(4, 3, 7, 7)},
            "must be [4, 3, 3, 3], got",
        ),
        (lambda s: {**s, "bn1.running_var": torch.zeros(3)}, "(1 keys differ); give weights of"),
        (lambda s: {"something": torch.zeros(1)}, "got nothing"),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_line(tmp_path, change, message):
    torch.save(change(Encoder().state_dict()), tmp_path / "file.pth")
    assert message in refused(tmp_path / "file.pth")


def test_a_vision_transformer_is_no_resnet(tmp_path):
    save_file({"cls_token": torch.zeros(1, 1, 384)}, tmp_path / "vit.safetensors")
    message = refused(tmp_path / "vit.safetensors", ResNet50(dilated=False))
    assert "(266 keys differ)" in message and message.endswith("a ResNet50")


def test_what_is_no_file_of_tensors_is_one_clear_line(tmp_path):
    assert "teacher weights must exist, got nothing" in refused(tmp_path / "gone.pth")
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"no weights")
        assert "must be a file of tensors, got " in refused(tmp_path / name)
    torch.save({"teacher": {}, "model": Encoder()}, tmp_path / "code.pth")
    assert "give the published file, or only its state dict" in refused(tmp_path / "code.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    assert "must be named tensors, got a list" in refused(tmp_path / "list.pth")


def test_resnet_equals_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.ResNetModel(transformers.ResNetConfig(downsample_in_bottleneck=False))
    with torch.no_grad():
        for key, value in theirs.state_dict().items():
            if "normalization" in key and value.is_floating_point():
                value.copy_(torch.rand_like(value) * 0.5 + 0.5)
    ours = ResNet50(dilated=False).eval()
    ours.load_state_dict(torchvision_names(theirs.state_dict()))
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, out = theirs.eval()(images).last_hidden_state, ours(images)
    assert out.shape == (1, 2048, 2, 3)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def torchvision_names(state):
    new = {}
    for key, value in state.items():
        words = key.split(".")
        kind, part = words[-2:]
        if words[0] == "embedder":
            name = {"convolution": "conv1", "normalization": "bn1"}[kind]
        elif words[5] == "shortcut":
            number = {"convolution": 0, "normalization": 1}[kind]
            name = f"layer{int(words[2]) + 1}.{words[4]}.downsample.{number}"
        else:
            short = {"convolution": "conv", "normalization": "bn"}[kind]
            name = f"layer{int(words[2]) + 1}.{words[4]}.{short}{int(words[6]) + 1}"
        new[f"{name}.{part}"] = value
    return new

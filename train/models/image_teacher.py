"""The frozen image networks whose features are distilled, and the trained head K on top of them.

In: images 0..1. Out: a feature map at a quarter of the image's size. Whatever the trainer calls,
the network stays in eval mode and without gradient: a teacher whose batch-norm statistics drift
along with training is no fixed target.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import UserError, check
from train.models.tiny_network import TinyNetwork

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MOCO_PREFIX = "module.encoder_q."
STRIDE = 4  # of all teachers here


@dataclass(frozen=True)
class Config:
    """Which teacher."""

    kind: Literal["resnet50", "tiny", "raw_rgb"] = "resnet50"  # method.md 3.3
    weights: str | None = None  # checkpoint file; None = random weights, a control
    seed: int = 0  # of random weights


class ImageTeacher(nn.Module):
    """A frozen network behind ImageNet normalization."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__()
        self.dim, self.stride = dim, STRIDE
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "ImageTeacher":
        """Stay in eval mode, whatever is asked for (method.md 2.6)."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map [I, dim, ceil(H / 4), ceil(W / 4)] of images.

        Args:
            images: [I, 3, H, W] float RGB in 0 .. 1.

        Raises:
            ValueError: not three channels.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"ImageTeacher: images must be [I, 3, H, W], got {list(images.shape)}; "
                "put the color channel second"
            )
        return self.network((images - self.mean) / self.std)


class ImageHead(nn.Module):
    """Head K: a 1x1 convolution with bias to the common feature space.

    Bilinear upsampling and L2 normalization per pixel follow in train.pooling: `pixel_features`
    makes them, `pool_pixels` averages them over superpixels without making them.
    """

    def __init__(self, dim: int, out: int = 64) -> None:
        super().__init__()
        self.project = nn.Conv2d(dim, out, kernel_size=1)

    def forward(self, teacher_map: Tensor) -> Tensor:
        """Return [I, out, h', w'], neither upsampled nor normalized.

        Args:
            teacher_map: [I, dim, h', w'] float, an ImageTeacher's output.

        Source: method.md 2.1 (SLidR, Apache-2.0).
        """
        return self.project(teacher_map)


def make_teacher(config: Config) -> ImageTeacher:
    """Return the configured teacher, with its weights or with random ones of its seed.

    Raises:
        UserError: the weights file is missing or belongs to another network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.kind == "resnet50":
            network, dim = DilatedResNet50(), DilatedResNet50.DIM
        elif config.kind == "tiny":
            network, dim = TinyNetwork(), TinyNetwork.DIM
        else:
            network, dim = nn.AvgPool2d(STRIDE, ceil_mode=True), 3
    if config.weights is not None:
        load_weights(network, Path(config.weights))
    return ImageTeacher(network, dim)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a checkpoint: ours (.safetensors), MoCo-v2's, or plain torchvision keys.

    Args:
        network: filled in place.
        path: a MoCo file keeps its encoder under `state_dict` with a prefix; the momentum encoder,
            the queue and the classifier `fc` are left aside.

    Raises:
        UserError: no such file, or keys or shapes of another network.
    """
    check(path.is_file(), f"{path}: teacher weights must exist, got nothing; give another path")
    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
    _check_fits(network, state := _encoder_keys(state), path)
    network.load_state_dict(state)


def _encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if any(key.startswith(MOCO_PREFIX) for key in state):
        state = {k.removeprefix(MOCO_PREFIX): v for k, v in state.items() if MOCO_PREFIX in k}
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def _check_fits(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    wanted = {key: list(value.shape) for key, value in network.state_dict().items()}
    found = {key: list(value.shape) for key, value in state.items()}
    wrong = [key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)]
    if wrong:
        key = min(wrong)
        raise UserError(
            f"{path}: {key} must be {wanted.get(key, 'absent')}, got {found.get(key, 'nothing')} "
            f"({len(wrong)} keys differ); give weights of a {type(network).__name__}"
        )


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; attribute names are torchvision's, so that its keys fit."""

    def __init__(self, inside: int, width: int, stride: int, dilation: int, shortcut: bool) -> None:
        super().__init__()
        out = width * 4
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = None
        if shortcut:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(
            self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))
        )


class DilatedResNet50(nn.Module):
    """ResNet-50 without classifier, strides of its stages 2 to 4 traded for dilation.

    Source: method.md 3.3; keys are torchvision's. The first block of a stage keeps the dilation of
    the stage before: layer2 1 then 2, layer3 2 then 4, layer4 4 then 8.
    """

    DIM = 2048

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, 1, 1)
        self.layer2 = _stage(256, 128, 4, 1, 2)
        self.layer3 = _stage(512, 256, 6, 2, 4)
        self.layer4 = _stage(1024, 512, 3, 4, 8)

    def forward(self, images: Tensor) -> Tensor:
        """Return [I, 2048, ceil(H / 4), ceil(W / 4)] of normalized images [I, 3, H, W]."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def _stage(inside: int, width: int, blocks: int, first_dilation: int, dilation: int) -> nn.Module:
    first = _Bottleneck(inside, width, 1, first_dilation, shortcut=True)
    rest = [_Bottleneck(width * 4, width, 1, dilation, shortcut=False) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)

"""The frozen image networks whose features are distilled, and the trained head K on top of them.

In: images 0..1. Out: a feature map at the network's stride. Whatever the trainer calls, the network
stays in eval mode and without gradient: a teacher whose batch-norm statistics drift along with
training is no fixed target.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from train.models.resnet50 import ResNet50
from train.models.teacher_files import load_weights
from train.models.tiny_network import STRIDE, TinyNetwork
from train.models.vision_transformer import SIZES, VisionTransformer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Config:
    """Which teacher."""

    kind: Literal[
        "resnet50",  # dilated to stride 4: SLidR's and Seal's, method.md 3.3
        "resnet50_stride32",  # PPKT's
        "dino_vits16",
        "dino_vits8",
        "dino_vitb16",
        "dino_vitb8",
        "dinov2_vits14",
        "dinov2_vitb14",
        "dinov2_vitl14",
        "tiny",  # the made-up city's
        "raw_rgb",  # a control
    ] = "resnet50"
    weights: str | None = None  # checkpoint file; None = random weights, a control
    seed: int = 0  # of random weights


class ImageTeacher(nn.Module):
    """A frozen network behind ImageNet normalization."""

    def __init__(self, network: nn.Module, dim: int, stride: int) -> None:
        super().__init__()
        self.dim, self.stride = dim, stride
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # the tiny one: 0.49 s against 0.75, one core
        self.eval()

    def train(self, mode: bool = True) -> "ImageTeacher":
        """Stay in eval mode, whatever is asked for (method.md 2.6)."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map [I, dim, ceil(H / stride), ceil(W / stride)] of images.

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
        normalized = (images - self.mean) / self.std
        return self.network(normalized.contiguous(memory_format=torch.channels_last))


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
        network, dim, stride = _build(config.kind)
    if config.weights is not None:
        load_weights(network, Path(config.weights))
    return ImageTeacher(network, dim, stride)


def _build(kind: str) -> tuple[nn.Module, int, int]:
    """Return a network with random weights, the width and the stride of its map."""
    if kind in SIZES:
        size = SIZES[kind]
        return VisionTransformer(size), size.dim, size.patch
    if kind == "tiny":
        return TinyNetwork(), TinyNetwork.DIM, STRIDE
    if kind == "raw_rgb":
        return nn.AvgPool2d(STRIDE, ceil_mode=True), 3, STRIDE
    network = ResNet50(dilated=kind == "resnet50")
    return network, network.DIM, network.stride

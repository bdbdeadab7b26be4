"""MinkUNet: voxels with features in, one feature vector per voxel out.

Source: Res16UNet34C of SLidR (valeoai/SLidR, Apache-2.0, model/res16unet.py) as tabled in
method.md 3.1, written anew; names and shapes of the parameters are SLidR's, so that its
checkpoints load. Engine-free: three sparse operations come from train.engines, the rest is dense.
How we differ: a training batch with a single voxel at some level is normalized by the running
statistics (torch refuses it), so that tiny clouds train.
"""

from collections.abc import Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import check
from train.engines.contract import Pointwise, Sparse
from train.engines.table import ENGINES, default_engine

WIDTHS_34 = (32, 32, 64, 128, 256, 256, 128, 96, 96)  # stem, down1..down4, up5..up8
DEPTHS_34 = (2, 3, 4, 6, 2, 2, 2, 2)  # residual blocks of down1..down4, up5..up8
MAPS = ((1, 1, 3),) + tuple(  # the kernel maps of a step: finer stride, coarser stride, kernel size
    key for s in (1, 2, 4, 8) for key in ((s, 2 * s, 2), (2 * s, 2 * s, 3))
)


class BatchNorm(nn.Module):
    """Batch norm over the rows of a sparse tensor; the inner name `bn` is MinkowskiEngine's."""

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels, momentum=momentum)

    def forward(self, features: Tensor) -> Tensor:
        """Normalize [V, D]; fewer than two rows by the running statistics even in training."""
        if self.training and len(features) < 2:
            bn = self.bn
            return F.batch_norm(
                features, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps
            )
        return self.bn(features)


class Block(nn.Module):
    """Conv3 - BN - ReLU - conv3 - BN - add - ReLU; 1x1 conv and BN beside it if widths differ."""

    def __init__(
        self,
        engine: ModuleType,
        in_channels: int,
        channels: int,
        momentum: float,
        inner_momentum: float,
    ) -> None:
        super().__init__()
        self.conv1 = engine.Convolution(in_channels, channels, kernel_size=3)
        self.norm1 = BatchNorm(channels, inner_momentum)
        self.conv2 = engine.Convolution(channels, channels, kernel_size=3)
        self.norm2 = BatchNorm(channels, inner_momentum)
        self.downsample = (
            nn.Sequential(Pointwise(in_channels, channels), BatchNorm(channels, momentum))
            if in_channels != channels
            else None
        )

    def forward(self, tensor: Sparse) -> Sparse:
        """Map [V, C_in] to [V, C] on the same voxels."""
        shortcut = tensor.features if self.downsample is None else self.downsample(tensor.features)
        hidden = self.conv1(tensor)
        hidden = hidden.with_features(F.relu_(self.norm1(hidden.features)))
        hidden = self.conv2(hidden)
        return hidden.with_features(F.relu_(self.norm2(hidden.features) + shortcut))


class MinkUNet(nn.Module):
    """A U-Net over four halvings of the voxel grid; see `minkunet` for the arguments."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        engine: str,
        bn_momentum: float,
        block_bn_momentum: float,
    ) -> None:
        super().__init__()
        self.engine_name = engine
        ops = ENGINES.load(engine)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.backbone_channels = widths[8]

        def stage(channels_in: int, channels: int, depth: int) -> nn.Sequential:
            inputs = [channels_in] + [channels] * (depth - 1)
            return nn.Sequential(
                *(Block(ops, each, channels, bn_momentum, block_bn_momentum) for each in inputs)
            )

        self.conv0p1s1 = ops.Convolution(in_channels, widths[0], kernel_size=3)
        self.bn0 = BatchNorm(widths[0], bn_momentum)
        for i in range(1, 5):
            width = widths[i - 1]
            down = ops.Convolution(width, width, kernel_size=2, stride=2)
            self.add_module(f"conv{i}p{2 ** (i - 1)}s2", down)
            self.add_module(f"bn{i}", BatchNorm(width, bn_momentum))
            self.add_module(f"block{i}", stage(width, widths[i], depths[i - 1]))
        for i in range(4, 8):
            width, skip = widths[i + 1], widths[7 - i]
            up = ops.TransposedConvolution(widths[i], width, kernel_size=2, stride=2)
            self.add_module(f"convtr{i}p{2 ** (8 - i)}s2", up)
            self.add_module(f"bntr{i}", BatchNorm(width, bn_momentum))
            self.add_module(f"block{i + 1}", stage(width + skip, width, depths[i]))
        self.final = Pointwise(widths[8], out_channels, bias=True)

    def encode(self, features: Tensor, coordinates: Tensor) -> Tensor:
        """Return the backbone's features [V, backbone_channels], before the last layer.

        Args:
            features: [V, in_channels] float32.
            coordinates: [V, 4] int32 (batch, x, y, z) voxels, every row once.
        """
        tensor = ENGINES.load(self.engine_name).make_tensor(features, coordinates, MAPS)
        tensor = self._step(tensor, "conv0p1s1", "bn0")
        skips = []
        for i in range(1, 5):
            skips.append(tensor)
            tensor = self._step(tensor, f"conv{i}p{2 ** (i - 1)}s2", f"bn{i}")
            tensor = self.get_submodule(f"block{i}")(tensor)
        for i in range(4, 8):
            tensor = self._step(tensor, f"convtr{i}p{2 ** (8 - i)}s2", f"bntr{i}")
            tensor = tensor.with_features(
                torch.cat([tensor.features, skips.pop().features], dim=1)
            )  # upsampled first, skip second
            tensor = self.get_submodule(f"block{i + 1}")(tensor)
        return tensor.features

    def forward(self, features: Tensor, coordinates: Tensor) -> Tensor:
        """Return [V, out_channels], rows in the order given; same arguments as `encode`."""
        return self.final(self.encode(features, coordinates))

    def _step(self, tensor: Sparse, convolution: str, norm: str) -> Sparse:
        tensor = self.get_submodule(convolution)(tensor)
        return tensor.with_features(F.relu_(self.get_submodule(norm)(tensor.features)))


def minkunet(
    in_channels: int,
    out_channels: int,
    widths: Sequence[int] = WIDTHS_34,
    depths: Sequence[int] = DEPTHS_34,
    engine: str | None = None,
    bn_momentum: float = 0.05,
    block_bn_momentum: float = 0.1,
) -> MinkUNet:
    """Return a MinkUNet of any width and depth, weights drawn from torch's global generator.

    Args:
        in_channels: features per voxel (1: intensity).
        out_channels: outputs per voxel (64 in pretraining, else the number of classes).
        widths: channels of the stem, down1 to down4, up5 to up8: nine numbers.
        depths: residual blocks of down1 to down4, up5 to up8: eight numbers.
        engine: name in ENGINES; None = default_engine().
        bn_momentum: of the stem, down, up and shortcut norms: 0.05 pretraining, 0.02 downstream.
        block_bn_momentum: of the norms inside the residual blocks. SLidR's configured momentum
            never reaches those, so they keep torch's 0.1; give `bn_momentum` here for the other
            reading (method.md 3.1).

    Raises:
        UserError: wrong number of widths or depths, one below 1, or an unknown engine.
    """
    for name, values, count in (("widths", widths, 9), ("depths", depths, 8)):
        check(
            len(values) == count and all(isinstance(v, int) and v >= 1 for v in values),
            f"minkunet: {name} must be {count} integers of at least 1, got {tuple(values)}",
        )
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        check(value >= 1, f"minkunet: {name} must be at least 1, got {value}")
    return MinkUNet(
        in_channels,
        out_channels,
        tuple(widths),
        tuple(depths),
        engine or default_engine(),
        bn_momentum,
        block_bn_momentum,
    )


def set_momentum(network: nn.Module, momentum: float, block_momentum: float) -> None:
    """Set the momentum of every batch norm, in place.

    Args:
        network: any part of a MinkUNet.
        momentum: of the stem, down, up and shortcut norms.
        block_momentum: of the norms inside the residual blocks.
    """
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    inside = {norm.bn for block in blocks for norm in (block.norm1, block.norm2)}
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = block_momentum if module in inside else momentum


def minkunet34(in_channels: int, out_channels: int, **options) -> MinkUNet:
    """Return the paper's network: 37,842,976 parameters and 97 for every output."""
    return minkunet(in_channels, out_channels, WIDTHS_34, DEPTHS_34, **options)


def minkunet_small(in_channels: int, out_channels: int, **options) -> MinkUNet:
    """Return the network of the synthetic city: half the width or less, one block per stage."""
    widths = (16, 16, 32, 64, 64, 64, 32, 32, 32)
    return minkunet(in_channels, out_channels, widths, (1,) * 8, **options)

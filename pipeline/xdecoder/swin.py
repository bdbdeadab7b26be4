"""Swin transformer, the backbone of OpenSeeD.

In: normalized images whose sides are multiples of 32. Out: maps at 1/4, 1/8, 1/16 and 1/32. Windows
that stick out of the map are padded with zeros after the norm, as in the detection variant.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.xdecoder.focalnet import MLP_RATIO, Mlp

PATCH = 4  # px


@dataclass(frozen=True)
class SwinShape:
    """Sizes of a Swin transformer."""

    width: int  # channels of the first stage; each next stage doubles them
    depths: tuple[int, ...]  # blocks per stage
    heads: tuple[int, ...]  # per stage
    window: int  # positions along each side of a window


class WindowAttention(nn.Module):
    """Attention among the positions of a window, with a learned bias per offset and head."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, apart: Tensor | None) -> Tensor:
        """Return [B, n, L, C] of windows [B, n, L, C].

        Args:
            windows: n windows of L = window * window positions.
            apart: [n, L, L] bool, True = the two positions are not neighbors in the image.
        """
        query, key, value = (
            x.unflatten(3, (self.heads, -1)).transpose(2, 3)
            for x in self.qkv(windows).chunk(3, dim=3)
        )
        bias = self.relative_position_bias_table[offsets(self.window, windows.device)]
        bias = bias.permute(2, 0, 1)[None]  # [1, heads, L, L]
        if apart is not None:
            bias = bias.masked_fill(apart[:, None], float("-inf"))
        mixed = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
        return self.proj(mixed.transpose(2, 3).flatten(3))


def offsets(window: int, device: torch.device) -> Tensor:
    """Return [L, L] int64: row of the bias table for each pair of positions of a window."""
    place = torch.arange(window, device=device)
    row, column = place.repeat_interleave(window), place.repeat(window)
    step = 2 * window - 1
    return (row[:, None] - row + window - 1) * step + column[:, None] - column + window - 1


def cut(x: Tensor, window: int) -> Tensor:
    """Return windows [B, n, window * window, C] of a map [B, H, W, C]."""
    x = x.unflatten(1, (-1, window)).unflatten(3, (-1, window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def join(windows: Tensor, height: int, width: int, window: int) -> Tensor:
    """Return the map [B, H, W, C] that `cut` cut into windows."""
    x = windows.unflatten(1, (height // window, width // window)).unflatten(3, (window, window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def apart_after_shift(height: int, width: int, window: int, shift: int, device) -> Tensor:
    """Return [n, L, L] bool: pairs in one window that the cyclic shift brought together."""
    region = torch.zeros(height, width, dtype=torch.int64, device=device)
    for size, weight in ((height, 3), (width, 1)):
        part = torch.zeros(size, dtype=torch.int64, device=device)
        part[size - window : size - shift] = 1
        part[size - shift :] = 2
        region += weight * (part[:, None] if weight == 3 else part[None])
    region = cut(region[None, :, :, None], window)[0, :, :, 0]
    return region[:, :, None] != region[:, None, :]


class SwinBlock(nn.Module):
    """Window attention and a perceptron, norms before; every second block shifts its windows."""

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, MLP_RATIO * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, H, W, C] of [B, H, W, C]."""
        height, width = x.shape[1:3]
        y = self.norm1(x)
        y = F.pad(y, (0, 0, 0, -width % self.window, 0, -height % self.window))
        size, apart = y.shape[1:3], None
        if self.shift:
            y = y.roll((-self.shift, -self.shift), (1, 2))
            apart = apart_after_shift(*size, self.window, self.shift, y.device)
        y = join(self.attn(cut(y, self.window), apart), *size, self.window)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + y[:, :height, :width]
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Two by two positions become one with twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, H / 2, W / 2, 2 C] of [B, H, W, C]."""
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class SwinStage(nn.Module):
    """Blocks at one resolution, and the downsampling that follows them."""

    def __init__(self, dim: int, heads: int, window: int, depth: int, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, window, window // 2 if i % 2 else 0) for i in range(depth)
        )
        self.downsample = None if last else PatchMerging(dim)


class SwinStem(nn.Module):
    """Patches of 4 x 4 pixels to vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, H / 4, W / 4, C] of [B, 3, H, W]."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class Swin(nn.Module):
    """The backbone.

    Source: fact sheet xdecoder.md 11; Liu et al., Swin Transformer, ICCV 2021.
    """

    def __init__(self, shape: SwinShape) -> None:
        super().__init__()
        widths = [shape.width * 2**stage for stage in range(len(shape.depths))]
        self.widths = tuple(widths)
        self.patch_embed = SwinStem(shape.width)
        stages = zip(widths, shape.heads, shape.depths, strict=True)
        self.layers = nn.ModuleList(
            SwinStage(dim, heads, shape.window, depth, last=dim == widths[-1])
            for dim, heads, depth in stages
        )
        for stage, dim in enumerate(widths):
            self.add_module(f"norm{stage}", nn.LayerNorm(dim))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps [B, C, H / s, W / s] for strides s = 4, 8, 16, 32.

        Args:
            images: [B, 3, H, W] float, normalized, sides multiples of 32.
        """
        x = self.patch_embed(images)
        maps = []
        for number, stage in enumerate(self.layers):
            for block in stage.blocks:
                x = block(x)
            maps.append(self.get_submodule(f"norm{number}")(x).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps

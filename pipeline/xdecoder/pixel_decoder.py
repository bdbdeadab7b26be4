"""Pixel decoder of SEEM and X-Decoder: a transformer on the coarsest map, then a feature pyramid.

In: the backbone's four maps. Out: three maps for the decoder to look at, coarse first, and the fine
map that masks are read from.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.xdecoder.attention import Attention
from pipeline.xdecoder.positions import sine_positions

NORM_GROUPS = 32


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of a transformer on image features."""

    hidden: int  # of the perceptrons
    heads: int
    depth: int


@dataclass(frozen=True)
class PixelFeatures:
    """What the decoders read."""

    levels: tuple[Tensor, ...]  # [B, D, h, w] each
    mask_features: Tensor  # [B, M, H / 4, W / 4]


class NormedConvolution(nn.Conv2d):
    """A convolution with a group norm after it, keys `weight`, `bias`, `norm.*`."""

    def __init__(self, inside: int, out: int, kernel: int) -> None:
        super().__init__(inside, out, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(NORM_GROUPS, out)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out, H, W] of [B, inside, H, W]."""
        return self.norm(super().forward(x))


class EncoderLayer(nn.Module):
    """Self-attention and a ReLU perceptron, norms on the sums."""

    def __init__(self, dim: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return [B, L, D] of [B, L, D]; positions [L, D] are added to queries and keys only."""
        placed = x + positions
        x = self.norm1(x + self.self_attn(placed, placed, x))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class Transformer(nn.Module):
    """The encoder layers, keys `encoder.layers.<i>`."""

    def __init__(self, dim: int, shape: EncoderShape) -> None:
        super().__init__()
        layers = (EncoderLayer(dim, shape.hidden, shape.heads) for _ in range(shape.depth))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})

    def forward(self, features: Tensor) -> Tensor:
        """Return [B, D, h, w] of [B, D, h, w]."""
        dim, height, width = features.shape[1:]
        positions = sine_positions(height, width, dim, features.device)
        x = features.flatten(2).transpose(1, 2)
        for layer in self.encoder["layers"]:
            x = layer(x, positions)
        return x.transpose(1, 2).unflatten(2, (height, width))


class PixelDecoder(nn.Module):
    """Transformer on 1/32, then merging with 1/16, 1/8 and 1/4.

    Source: fact sheet xdecoder.md 3 (microsoft/X-Decoder, Apache-2.0).
    """

    def __init__(
        self, widths: tuple[int, ...], dim: int, mask_dim: int, encoder: EncoderShape
    ) -> None:
        super().__init__()
        self.input_proj = nn.Conv2d(widths[-1], dim, 1)
        self.transformer = Transformer(dim, encoder)
        for number, width in enumerate(widths[:-1], start=1):
            self.add_module(f"adapter_{number}", NormedConvolution(width, dim, 1))
        for number in range(1, len(widths) + 1):
            self.add_module(f"layer_{number}", NormedConvolution(dim, dim, 3))
        self.mask_features = nn.Conv2d(dim, mask_dim, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> PixelFeatures:
        """Return levels at 1/32, 1/16, 1/8 and mask features at 1/4 of maps at 1/4 .. 1/32."""
        y = self.transformer(self.input_proj(maps[-1]))
        y = self.get_submodule(f"layer_{len(maps)}")(y).relu_()
        levels = [y]
        for number in range(len(maps) - 1, 0, -1):
            adapted = self.get_submodule(f"adapter_{number}")(maps[number - 1])
            y = adapted.add_(F.interpolate(y, adapted.shape[-2:], mode="nearest"))
            y = self.get_submodule(f"layer_{number}")(y).relu_()
            levels.append(y)
        return PixelFeatures(tuple(levels[:3]), self.mask_features(y))


def flatten_level(level: Tensor) -> Tensor:
    """Return [B, h * w, D] of [B, D, h, w]."""
    return level.flatten(2).transpose(1, 2)


def at_positions(level: Tensor) -> Tensor:
    """Return the sine positions [h * w, D] of a level [B, D, h, w]."""
    return sine_positions(*level.shape[-2:], level.shape[1], level.device)


def mask_logits(vectors: Tensor, mask_features: Tensor) -> Tensor:
    """Return [B, Q, h, w]: dot product of mask vectors [B, Q, M] with features [B, M, h, w]."""
    return torch.einsum("bqm,bmhw->bqhw", vectors, mask_features)

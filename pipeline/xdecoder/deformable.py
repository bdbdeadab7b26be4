"""Deformable attention and OpenSeeD's pixel decoder that is made of it.

Each query reads a few points per level, at learned offsets from where it is. Upstream needs a CUDA
operator for that; here it is grid_sample, on any device.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.xdecoder.pixel_decoder import (
    NORM_GROUPS,
    EncoderShape,
    NormedConvolution,
    PixelFeatures,
    at_positions,
    flatten_level,
)


class DeformableAttention(nn.Module):
    """Each query reads `points` places per level and head."""

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        samples = heads * levels * points
        self.sampling_offsets = nn.Linear(dim, 2 * samples)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def forward(
        self, query: Tensor, boxes: Tensor, memory: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Return [B, Q, D].

        Args:
            query: [B, Q, D] float.
            boxes: [B or 1, Q, 2] centers x, y, 0 .. 1 of the map; offsets then count in positions
                of each level. Or [B, Q, 4] with width and height; offsets then count in halves of
                them divided by the number of points.
            memory: [B, L, D], the levels one after the other.
            sizes: height, width of each level.

        Source: fact sheet xdecoder.md 11; Zhu et al., Deformable DETR, ICLR 2021, eq. 3.
        """
        shape = (self.heads, self.levels, self.points)
        steps = self.sampling_offsets(query).unflatten(2, (*shape, 2))
        weights = self.attention_weights(query).unflatten(2, (self.heads, -1)).softmax(dim=-1)
        weights = weights.unflatten(3, shape[1:])
        boxes = boxes[:, :, None, None, None]
        if boxes.shape[-1] == 2:
            scale = torch.tensor([(1 / w, 1 / h) for h, w in sizes], device=query.device)[:, None]
        else:
            scale = boxes[..., 2:] * 0.5 / self.points
        places = boxes[..., :2] + steps * scale  # [B, Q, heads, levels, points, 2]
        values = self.value_proj(memory).unflatten(2, (self.heads, -1))
        lengths = [h * w for h, w in sizes]
        parts = zip(values.split(lengths, dim=1), sizes, strict=True)
        total = 0
        for level, (value, size) in enumerate(parts):
            grid = value.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, size)
            where = places[:, :, :, level].transpose(1, 2).flatten(0, 1)
            # in float32 also under autocast: half precision is too coarse for places
            read = F.grid_sample(grid.float(), 2 * where.float() - 1, align_corners=False)
            share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
            total = total + (read * share).sum(dim=-1)  # [B * heads, D / heads, Q]
        return self.output_proj(total.unflatten(0, (-1, self.heads)).flatten(1, 2).transpose(1, 2))


class DeformableLayer(nn.Module):
    """Deformable self-attention and a ReLU perceptron, norms on the sums."""

    def __init__(self, dim: int, hidden: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(dim, heads, levels, points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, positions: Tensor, centers: Tensor, sizes: Sequence) -> Tensor:
        """Return [B, L, D] of the levels' features [B, L, D]."""
        x = self.norm1(x + self.self_attn(x + positions, centers, x, sizes))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class DeformableEncoder(nn.Module):
    """The layers, keys `encoder.layers.<i>`, and one vector per level."""

    def __init__(self, dim: int, shape: EncoderShape, levels: int, points: int) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(levels, dim))
        sizes = (dim, shape.hidden, shape.heads, levels, points)
        layers = (DeformableLayer(*sizes) for _ in range(shape.depth))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return levels [B, D, h, w] of levels [B, D, h, w]."""
        sizes = [tuple(level.shape[-2:]) for level in levels]
        places = zip(levels, self.level_embed, strict=True)
        positions = torch.cat([at_positions(level) + own for level, own in places])
        centers = torch.cat([pixel_centers(*size, levels[0].device) for size in sizes])[None]
        x = torch.cat([flatten_level(level) for level in levels], dim=1)
        for layer in self.encoder["layers"]:
            x = layer(x, positions, centers, sizes)
        parts = x.split([h * w for h, w in sizes], dim=1)
        return tuple(
            part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes, strict=True)
        )


class DeformablePixelDecoder(nn.Module):
    """Encoder on 1/8 .. 1/64, then merging with 1/4.

    Source: fact sheet xdecoder.md 11 (IDEA-Research/OpenSeeD, Apache-2.0).
    """

    def __init__(
        self, widths: tuple[int, ...], dim: int, mask_dim: int, encoder: EncoderShape, points: int
    ) -> None:
        super().__init__()
        projections = [nn.Conv2d(width, dim, 1) for width in widths[1:]]
        projections.append(nn.Conv2d(widths[-1], dim, 3, stride=2, padding=1))
        self.input_proj = nn.ModuleList(
            nn.Sequential(each, nn.GroupNorm(NORM_GROUPS, dim)) for each in projections
        )
        self.transformer = DeformableEncoder(dim, encoder, len(projections), points)
        self.adapter_1 = NormedConvolution(widths[0], dim, 1)
        self.layer_1 = NormedConvolution(dim, dim, 3)
        self.mask_features = nn.Conv2d(dim, mask_dim, 1)

    def forward(self, maps: list[Tensor]) -> PixelFeatures:
        """Return levels at 1/8 .. 1/64 and mask features at 1/4 of maps at 1/4 .. 1/32."""
        sources = [*maps[1:], maps[-1]]
        levels = self.transformer(
            [project(x) for project, x in zip(self.input_proj, sources, strict=True)]
        )
        fine = self.adapter_1(maps[0])
        up = F.interpolate(levels[0], fine.shape[-2:], mode="bilinear", align_corners=False)
        return PixelFeatures(levels, self.mask_features(F.relu(self.layer_1(fine + up))))


def pixel_centers(height: int, width: int, device: torch.device) -> Tensor:
    """Return [height * width, 2]: x, y of each position's center, 0 .. 1 of the map."""
    y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
    x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
    return torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)), dim=-1).flatten(0, 1)

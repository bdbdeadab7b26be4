"""ViT teachers: DINO and DINOv2, small to large.

In: normalized images of any size. Out: the normalized patch tokens as a feature map at the patch
size. Parameter names and shapes are those of the published files (facebookresearch/dino and
dinov2, both Apache-2.0), so that they load strictly.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    """One published network."""

    dim: int
    depth: int
    heads: int
    patch: int  # side of a patch, pixels
    grid: int  # patches along a side of the pictures it was trained on: the position table's size
    has_scale: bool  # DINOv2 scales each residual branch by channel
    mlp_ratio: int = 4


SIZES = {
    "dino_vits16": Size(384, 12, 6, 16, 14, False),
    "dino_vits8": Size(384, 12, 6, 8, 28, False),
    "dino_vitb16": Size(768, 12, 12, 16, 14, False),
    "dino_vitb8": Size(768, 12, 12, 8, 28, False),
    "dinov2_vits14": Size(384, 12, 6, 14, 37, True),
    "dinov2_vitb14": Size(768, 12, 12, 14, 37, True),
    "dinov2_vitl14": Size(1024, 24, 16, 14, 37, True),
}


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        num, length, dim = x.shape
        qkv = self.qkv(x).view(num, length, 3, self.heads, dim // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).reshape(num, length, dim))


class _Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Scale(nn.Module):
    """One factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Block(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.dim, eps=1e-6)
        self.attn = _Attention(size.dim, size.heads)
        self.ls1 = _Scale(size.dim) if size.has_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(size.dim, eps=1e-6)
        self.mlp = _Mlp(size.dim, size.mlp_ratio * size.dim)
        self.ls2 = _Scale(size.dim) if size.has_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _PatchEmbed(nn.Module):
    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class VisionTransformer(nn.Module):
    """A plain ViT; the class token takes part in attention and is dropped at the end."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size, self.stride = size, size.patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + size.grid**2, size.dim) * 0.02)
        self.patch_embed = _PatchEmbed(size.dim, size.patch)
        self.blocks = nn.ModuleList(_Block(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Return [I, dim, ceil(H / patch), ceil(W / patch)] of normalized images [I, 3, H, W].

        An image whose sides are no multiples of the patch is enlarged to the next ones (bilinear):
        416 to 420 at patch 14. Recipes with such a teacher ask for 224 x 448, as its users do.
        """
        height, width = (-(-side // self.stride) * self.stride for side in images.shape[2:])
        if (height, width) != tuple(images.shape[2:]):
            images = F.interpolate(images, (height, width), mode="bilinear")
        cells = self.patch_embed(images)  # [I, dim, h', w']
        tokens = cells.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = tokens + self.positions(*cells.shape[2:])
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 1:].transpose(1, 2).reshape(cells.shape)

    def positions(self, height: int, width: int) -> Tensor:
        """Return the position table [1, 1 + h' w', dim] for another grid, bicubic.

        How we differ: the authors scale by (h' + 0.1) / grid, which moves the far border by up to
        0.1 grid / h' cells of the table (0.23 of 37 at h' = 16). Here, as in transformers, borders
        meet exactly.
        """
        own, grid = self.pos_embed, self.size.grid
        if (height, width) == (grid, grid):
            return own
        table = own[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table, (height, width), mode="bicubic", align_corners=False)
        return torch.cat([own[:, :1], table.flatten(2).transpose(1, 2)], dim=1)

"""FocalNet, the backbone of SEEM and X-Decoder, in its plain (L) and its depthwise (T) variant.

In: normalized images whose sides are multiples of 32. Out: maps at 1/4, 1/8, 1/16 and 1/32.
Features stay channels-last throughout, so that linear layers and convolutions share one layout.
What is ours alone is changed in place: a fresh map of 71 MB (1600 x 900, first stage) costs 40 ms
of page faults against 5 ms of arithmetic.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MLP_RATIO = 4
gelu_ = torch.ops.aten.gelu_  # exact GELU in place; torch.nn.functional has none
STEM_PADDING = {False: 2, True: 3}  # by is_depthwise; fact sheet xdecoder.md 2.1 and 2.2


@dataclass(frozen=True)
class FocalShape:
    """Sizes of a FocalNet."""

    width: int  # channels of the first stage; each next stage doubles them
    depths: tuple[int, ...]  # blocks per stage
    kernels: tuple[tuple[int, ...], ...]  # depthwise kernel sizes per stage, one per focal level
    is_depthwise: bool  # the 'dw' variant: 3x3 depthwise shortcuts, norms after the sum


def convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution to channels-last features [B, H, W, C] and return such."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class FocalModulation(nn.Module):
    """Context gathered by ever wider depthwise convolutions modulates a query at each position."""

    def __init__(self, dim: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = dim
        self.f = nn.Linear(dim, 2 * dim + len(kernels) + 1)
        self.h = nn.Conv2d(dim, dim, 1)
        self.proj = nn.Linear(dim, dim)
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim, bias=False))
            for k in kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, H, W, C] of [B, H, W, C]."""
        # three products with parts of one matrix: each result lies dense in memory, and the
        # query is made only when the context is done with
        sizes = (self.dim, self.dim, len(self.focal_layers) + 1)
        (query_w, context_w, gate_w), (query_b, context_b, gate_b) = (
            parameter.split(sizes) for parameter in (self.f.weight, self.f.bias)
        )
        context, gates = F.linear(x, context_w, context_b), F.linear(x, gate_w, gate_b)
        total = torch.zeros_like(context)
        for level, layer in enumerate(self.focal_layers):
            context = gelu_(convolve(layer, context))
            total.addcmul_(context, gates[..., level : level + 1])
        whole = F.gelu(context.mean((1, 2), keepdim=True))
        total.addcmul_(whole, gates[..., -1:]).div_(gates.shape[-1])
        return self.proj(F.linear(x, query_w, query_b).mul_(convolve(self.h, total)))


class Mlp(nn.Module):
    """Two linear layers with exact GELU in between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., C] of [..., C]."""
        return self.fc2(gelu_(self.fc1(x)))


class FocalBlock(nn.Module):
    """Modulation and perceptron with scaled shortcuts; norms on the branch, or (dw) on the sum."""

    def __init__(self, dim: int, kernels: tuple[int, ...], is_depthwise: bool) -> None:
        super().__init__()
        self.is_depthwise = is_depthwise
        if is_depthwise:
            self.dw1 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
            self.dw2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.modulation = FocalModulation(dim, kernels)
        self.mlp = Mlp(dim, MLP_RATIO * dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.gamma_1 = nn.Parameter(torch.empty(dim))
        self.gamma_2 = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, H, W, C] of [B, H, W, C]."""
        if not self.is_depthwise:
            x = torch.addcmul(x, self.gamma_1, self.norm1(self.modulation(x)))
            return torch.addcmul(x, self.gamma_2, self.norm2(self.mlp(x)))
        x = x + convolve(self.dw1, x)
        x = self.norm1(torch.addcmul(x, self.gamma_1, self.modulation(x)))
        x = x + convolve(self.dw2, x)
        return self.norm2(torch.addcmul(x, self.gamma_2, self.mlp(x)))


class PatchEmbedding(nn.Module):
    """A strided convolution followed by a norm over channels: the stem and every downsampling."""

    def __init__(self, inside: int, out: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inside, out, kernel, stride, padding)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, H / stride, W / stride, out] of [B, H, W, inside]."""
        return self.norm(convolve(self.proj, x))


class FocalStage(nn.Module):
    """Blocks at one resolution, and the downsampling that follows them."""

    def __init__(self, dim: int, kernels: tuple, depth: int, is_depthwise: bool, last: bool):
        super().__init__()
        self.blocks = nn.ModuleList(FocalBlock(dim, kernels, is_depthwise) for _ in range(depth))
        self.downsample = None if last else PatchEmbedding(dim, 2 * dim, 3, 2, 1)


class FocalNet(nn.Module):
    """The backbone.

    Source: fact sheet xdecoder.md 2 (microsoft/X-Decoder, Apache-2.0; FocalNet files MIT).
    """

    def __init__(self, shape: FocalShape) -> None:
        super().__init__()
        widths = [shape.width * 2**stage for stage in range(len(shape.depths))]
        self.widths = tuple(widths)
        padding = STEM_PADDING[shape.is_depthwise]
        self.patch_embed = PatchEmbedding(3, shape.width, 7, 4, padding)
        stages = zip(widths, shape.kernels, shape.depths, strict=True)
        self.layers = nn.ModuleList(
            FocalStage(dim, kernels, depth, shape.is_depthwise, last=dim == widths[-1])
            for dim, kernels, depth in stages
        )
        for stage, dim in enumerate(widths):
            self.add_module(f"norm{stage}", nn.LayerNorm(dim))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps [B, C, H / s, W / s] for strides s = 4, 8, 16, 32.

        Args:
            images: [B, 3, H, W] float, normalized, sides multiples of 32.
        """
        x = self.patch_embed(images.permute(0, 2, 3, 1))
        maps = []
        for number, stage in enumerate(self.layers):
            for block in stage.blocks:
                x = block(x)
            norm = self.get_submodule(f"norm{number}")
            maps.append(norm(x).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps

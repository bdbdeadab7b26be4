"""Multi-head attention and the small perceptron that all parts of the family are made of.

Parameter names are those of torch.nn.MultiheadAttention, so that checkpoints fit. Our own because
a mask can then be shared by all heads: nn.MultiheadAttention wants one copy per head, 75 MB instead
of 9 MB in the finest layer of a 1600 x 900 image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Scaled dot-product attention with the fused projection of queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        blocked: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Return [B, Q, D].

        Args:
            query: [B, Q, D] float.
            key: [B, L, D] float.
            value: [B, L, D] float.
            blocked: bool, broadcastable to [B, heads, Q, L]; True = is not looked at. No row may be
                True throughout.
            is_causal: a position sees only itself and those before it.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        query, key, value = (
            F.linear(x, weight, bias).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        seen = None if blocked is None else ~blocked
        mixed = F.scaled_dot_product_attention(query, key, value, seen, is_causal=is_causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """Linear layers with ReLU in between, keys `layers.<i>`."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        pairs = zip(dims[:-1], dims[1:], strict=True)
        self.layers = nn.ModuleList(nn.Linear(inside, outside) for inside, outside in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., dims[-1]] of [..., dims[0]]."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)

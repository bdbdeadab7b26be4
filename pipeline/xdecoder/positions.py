"""Sine positions: where in the map a feature lies, as a vector without weights."""

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def sine_waves(angle: Tensor, dim: int) -> Tensor:
    """Return [..., dim]: sine (even places) and cosine (odd) of angles at falling frequencies.

    Args:
        angle: [...] float, rad at the highest frequency.
        dim: length of the vector, even.

    Source: fact sheet xdecoder.md 4; frequencies 10000^(-2 floor(j / 2) / dim), j = 0 .. dim - 1.
    """
    place = torch.arange(dim, dtype=torch.float32, device=angle.device)
    waves = angle[..., None] / TEMPERATURE ** (2 * (place // 2) / dim)
    return torch.stack((waves[..., 0::2].sin(), waves[..., 1::2].cos()), dim=-1).flatten(-2)


def sine_positions(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Return [height * width, dim] float32: first half from the row, second from the column.

    Rows and columns count from 1 and are scaled so that the last one is a full turn.

    Source: fact sheet xdecoder.md 4.
    """
    rows, columns = (
        torch.arange(1, size + 1, dtype=torch.float32, device=device) / (size + 1e-6) * 2 * math.pi
        for size in (height, width)
    )
    by_row = sine_waves(rows, dim // 2)[:, None].expand(-1, width, -1)
    by_column = sine_waves(columns, dim // 2)[None].expand(height, -1, -1)
    return torch.cat((by_row, by_column), dim=-1).flatten(0, 1)

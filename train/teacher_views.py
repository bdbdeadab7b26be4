"""Two views of one image, and places that both of them show.

In: images 0..1. Out: crops of another scale, mirrored or not, with other colors, and the places
where one surface point lies in each. A place is x, y in -1 .. 1 over its view.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from train.models.image_teacher import IMAGENET_MEAN, IMAGENET_STD


def draw_boxes(count: int, min_side: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return centers and half sizes [I, 2] (x, y; the image is -1 .. 1); x < 0 = mirrored."""
    side = min_side + (1 - min_side) * torch.rand(count, 1, generator=generator)
    stretch = torch.exp(0.3 * (torch.rand(count, 1, generator=generator) - 0.5))
    half = (side * torch.cat([stretch, 1 / stretch], dim=1)).clamp(max=1)
    center = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - half)
    mirrored = torch.rand(count, generator=generator) < 0.5
    half[:, 0] = torch.where(mirrored, -half[:, 0], half[:, 0])
    return center, half


def common_places(
    boxes: list[tuple[Tensor, Tensor]], count: int, generator: torch.Generator
) -> list[Tensor]:
    """Return places [I, L, 2] in each view's own coordinates, drawn where the boxes overlap.

    Boxes that do not meet give places outside both, which are read at the border; with sides of at
    least 0.45 that is rare.
    """
    low = torch.stack([center - half.abs() for center, half in boxes]).amax(0)
    high = torch.stack([center + half.abs() for center, half in boxes]).amin(0)
    drawn = torch.rand(len(low), count, 2, generator=generator)
    source = low[:, None] + drawn * (high - low)[:, None]
    return [(source - center[:, None]) / half[:, None] for center, half in boxes]


def cut_views(images: Tensor, center: Tensor, half: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the boxes' contents [I, 3, *size] of images [I, 3, H, W], bilinear."""
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = half[:, 0], half[:, 1], center
    grid = F.affine_grid(theta, [len(images), 3, *size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def recolor(views: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Return the views with other exposure, white balance, saturation, contrast and noise."""

    def draw(*shape: int) -> Tensor:
        return strength * (2 * torch.rand(*shape, generator=generator) - 1)

    count = len(views)
    grey = views.mean(1, keepdim=True)
    views = grey + (views - grey) * (1 + 0.6 * draw(count, 1, 1, 1))
    views = views * torch.exp(0.35 * draw(count, 1, 1, 1) + 0.2 * draw(count, 3, 1, 1))
    mean = views.mean((1, 2, 3), keepdim=True)
    views = mean + (views - mean) * (1 + 0.4 * draw(count, 1, 1, 1))
    noise = torch.randn(views.shape, generator=generator) * 0.02 * strength
    return (views + noise).clamp(0, 1)


def normalize(views: Tensor) -> Tensor:
    """Return the views as an ImageTeacher's network gets them."""
    mean, std = (views.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (views - mean) / std

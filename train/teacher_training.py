"""Train the tiny teacher of the made-up city on images alone: no label, no LiDAR, no mask.

In: image files of city seeds that nothing else uses. Out: a safetensors file of TinyNetwork. Two
views of an image (crop, scale, flip, colors) must put the same place into the same of a few learned
clusters. Clusters rather than place-against-place contrast, because most other places of a batch
are of the same kind and InfoNCE would push two patches of one road apart (not compared).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import check
from pipeline.image import decode_image
from train.models.image_teacher import IMAGENET_MEAN, IMAGENET_STD, TinyNetwork


@dataclass(frozen=True)
class Config:
    """Settings of the teacher's training; all are our choices."""

    batch: int = 6  # images per step
    view: tuple[int, int] = (80, 128)  # height, width of a view, pixels
    min_side: float = 0.45  # shortest side of a crop, fraction of the image's
    places: int = 160  # compared per image
    clusters: int = 128  # prototypes
    temperature: float = 0.1  # of the cluster scores; SwAV
    epsilon: float = 0.05  # entropy of the balanced assignment; SwAV
    lr: float = 2e-3  # AdamW, cosine to 0 with 5 % warm-up
    color: float = 1.0  # strength of the color changes


class _Clusterer(nn.Module):
    """The network with a projector and prototypes, which are thrown away after training."""

    def __init__(self, clusters: int) -> None:
        super().__init__()
        self.network = TinyNetwork()
        dim = TinyNetwork.DIM
        self.project = nn.Sequential(
            nn.BatchNorm1d(dim),
            nn.ReLU(),
            nn.Linear(dim, dim),
            nn.BatchNorm1d(dim),
            nn.ReLU(),
            nn.Linear(dim, 64),
        )
        self.prototypes = nn.Linear(64, clusters, bias=False)

    def forward(self, views: Tensor, places: Tensor) -> Tensor:
        """Return cosine scores [I * L, clusters] at places [I, L, 2] (x, y in -1 .. 1)."""
        feature_map = self.network(views)
        sampled = F.grid_sample(
            feature_map, places[:, None], padding_mode="border", align_corners=False
        )  # [I, D, 1, L]
        features = sampled[:, :, 0].transpose(1, 2).flatten(0, 1)
        unit = F.normalize(self.project(features), dim=1)
        return unit @ F.normalize(self.prototypes.weight, dim=1).T


def train_teacher(
    image_paths: Sequence[Path], out_path: Path, steps: int, seed: int, config: Config | None = None
) -> list[float]:
    """Train the tiny network and write it.

    Args:
        image_paths: images of one size, at least `batch` of them, all held in memory.
        out_path: .safetensors, overwritten.
        steps: optimizer steps; 360 took 216 s on two shared cores (batch 6, views 80 x 128).
        seed: of weights, crops and colors.
        config: None = the defaults.

    Returns:
        The loss at every step; log(clusters) is chance.

    Raises:
        UserError: fewer images than a batch.

    Source: swapped prediction of balanced cluster assignments (SwAV, NeurIPS 2020, equations 2 to
    4) at corresponding places instead of whole images, on a network of six convolutions.
    """
    config = config or Config()
    check(
        len(image_paths) >= config.batch,
        f"teacher training: must have at least {config.batch} images, got {len(image_paths)}; "
        "synthesize a larger city",
    )
    images = torch.stack([torch.from_numpy(decode_image(path)) for path in image_paths])
    images = images.permute(0, 3, 1, 2).contiguous()  # [F, 3, H, W] uint8
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _Clusterer(config.clusters)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=1e-4)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _schedule(step, steps)
        chosen = torch.randperm(len(images), generator=generator)[: config.batch]
        loss = _step_loss(model, images[chosen].float() / 255, config, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    out_path.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.network.state_dict(), out_path)
    return losses


def _schedule(step: int, steps: int) -> float:
    warm_up = max(1, steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _step_loss(
    model: _Clusterer, images: Tensor, config: Config, generator: torch.Generator
) -> Tensor:
    boxes = [_draw_boxes(len(images), config.min_side, generator) for _ in range(2)]
    places = _common_places(boxes, config.places, generator)
    scores = []
    for (center, half), source_places in zip(boxes, places, strict=True):
        views = _views(images, center, half, config.view)
        views = _recolor(views, config.color, generator)
        scores.append(model(_normalize(views), source_places))
    loss = torch.zeros(())
    for own, other in ((0, 1), (1, 0)):
        target = _balance(scores[other].detach(), config.epsilon)
        log_guess = F.log_softmax(scores[own] / config.temperature, dim=1)
        loss = loss - (target * log_guess).sum(1).mean() / 2
    return loss


def _draw_boxes(count: int, min_side: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return centers and half sizes [I, 2] (x, y; the image is -1 .. 1); x < 0 = mirrored."""
    side = min_side + (1 - min_side) * torch.rand(count, 1, generator=generator)
    stretch = torch.exp(0.3 * (torch.rand(count, 1, generator=generator) - 0.5))
    half = (side * torch.cat([stretch, 1 / stretch], dim=1)).clamp(max=1)
    center = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - half)
    mirrored = torch.rand(count, generator=generator) < 0.5
    half[:, 0] = torch.where(mirrored, -half[:, 0], half[:, 0])
    return center, half


def _common_places(
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


def _views(images: Tensor, center: Tensor, half: Tensor, size: tuple[int, int]) -> Tensor:
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = half[:, 0], half[:, 1], center
    grid = F.affine_grid(theta, [len(images), 3, *size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _recolor(views: Tensor, strength: float, generator: torch.Generator) -> Tensor:
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


def _normalize(views: Tensor) -> Tensor:
    mean, std = (views.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (views - mean) / std


def _balance(scores: Tensor, epsilon: float) -> Tensor:
    """Return soft assignments [A, clusters] that fill all clusters alike (Sinkhorn-Knopp)."""
    weights = torch.exp((scores - scores.max()) / epsilon)
    for _ in range(3):
        weights = weights / weights.sum(0, keepdim=True).clamp(min=1e-12)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
    return weights

"""Train the tiny SAM that ships: true segments of made-up cities, one point per prompt.

In: nothing; pictures of city seeds that nothing else uses are drawn on the spot. Out:
weights/tiny_sam.safetensors. Small enough for one core: a ViT of 96 channels on 26 x 26 patches.
It lives in stage one because only pipeline/superpixels/sam.py may import the package's classes.

    python -m pipeline.sam.tiny_training --out weights/tiny_sam.safetensors
"""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import run_main
from pipeline.progress import Progress
from pipeline.sam.decode import draw as draw_masks
from pipeline.sam.decode import rate, share
from pipeline.sam.tiny_losses import balanced, dice, likeness, overlap
from pipeline.sam.tiny_start import TINY, Settings, start_near
from pipeline.synthetic.scene import draw_drive
from pipeline.synthetic.sensors import draw_rig, take_picture
from pipeline.synthetic.write import VERSION

HEIGHT, WIDTH = 234, 416  # of the demo city's images
BILINEAR = Image.Resampling.BILINEAR
TIMES_S = (0.5, 2.5)  # at which a scene is looked at


@dataclass(frozen=True)
class Picture:
    """A picture of a city with its true segments."""

    image_rgb: np.ndarray  # [H, W, 3] uint8
    pieces: np.ndarray  # [H, W] int, the piece of the scene that each pixel shows


@dataclass(frozen=True)
class Prompted:
    """One image and what its prompts ask for."""

    image: Tensor  # [3, H, W] float32, 0 .. 255
    points: Tensor  # [B, 2] float32, x, y in px of the image
    targets: Tensor  # [B, h, w] float32, share of each mask pixel that the segment covers


def draw_pictures(first_seed: int, num_scenes: int, times_s: Sequence[float]) -> list[Picture]:
    """Return what all cameras see at some times in the first scene of cities of their own each."""
    pictures = []
    progress = Progress("draw", num_scenes, "scenes")
    for seed in range(first_seed, first_seed + num_scenes):
        drive = draw_drive(seed, 0, "train", max(times_s), VERSION)
        rig = draw_rig(np.random.default_rng(seed), HEIGHT, WIDTH)
        for noise, time_s in enumerate(times_s):
            for camera in rig[1:]:
                pictures.append(Picture(*take_picture(drive, camera, time_s, HEIGHT, WIDTH, noise)))
        progress.advance()
    progress.close()
    return pictures


def draw(picture: Picture, settings: Settings, rng: np.random.Generator) -> Prompted:
    """Return an image, cut, mirrored and recolored at random, with points on its segments.

    Half of the points are drawn by segment, so that small ones count; half by area, as the grid of
    the mask generator lies.
    """
    image, ids = picture.image_rgb, picture.pieces
    _, ids = np.unique(ids, return_inverse=True)
    ids = ids.reshape(picture.pieces.shape).astype(np.uint16)
    height, width = ids.shape
    zoom = rng.uniform(1, settings.zoom)
    h, w = round(height / zoom), round(width / zoom)
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    window = slice(top, top + h), slice(left, left + w)
    image = cv2.resize(image[window], (width, height), interpolation=cv2.INTER_LINEAR)
    ids = cv2.resize(ids[window], (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    if rng.random() < 0.5:
        image, ids = np.ascontiguousarray(image[:, ::-1]), ids[:, ::-1]
    gain = np.exp(rng.uniform(-0.35, 0.35) + rng.uniform(-0.15, 0.15, 3))
    flat = ids.ravel()
    order = np.argsort(flat, kind="stable")
    count = np.bincount(flat)
    first = np.concatenate([[0], np.cumsum(count)])
    large = np.flatnonzero(count >= settings.min_pixels)
    named = rng.choice(large, settings.prompts // 2)
    places = [order[rng.integers(first[i], first[i + 1])] for i in named]
    places += list(rng.integers(flat.size, size=settings.prompts - len(places)))
    places = np.array(places)
    points = np.stack([places % width, places // width], axis=1)
    scale = TINY.image_size / max(height, width)
    small = Image.fromarray(image).resize((round(width * scale), round(height * scale)), BILINEAR)
    colored = (np.asarray(small) * gain.astype(np.float32)).clip(0, 255)
    step = round(TINY.image_size / (4 * TINY.grid) / scale)  # px of the image in a mask pixel
    padded = np.pad(ids, ((0, -height % step), (0, -width % step)), mode="edge")
    targets = (padded[None] == flat[places][:, None, None]).astype(np.float32)
    targets = targets.reshape(len(places), -1, step, padded.shape[1] // step, step).mean((2, 4))
    return Prompted(
        torch.from_numpy(np.ascontiguousarray(colored.transpose(2, 0, 1), dtype=np.float32)),
        torch.from_numpy(points * scale),
        torch.from_numpy(targets),
    )


def loss_of(
    model: nn.Module, batch: Sequence[Prompted], settings: Settings
) -> tuple[Tensor, Tensor]:
    """Return the loss of some images, and the IoU [B] of the mask each prompt rates best.

    Source: Kirillov et al. 2023: loss of the best of three masks, squared error of the predicted
    IoU. Ours: half of the weight goes to all three masks, because these steps are too few for those
    that seldom win, and the IoU of all three is learned, because all are asked for.
    """
    images = torch.stack([model.preprocess(prompted.image) for prompted in batch])
    losses, chosen = [], []
    for embedding, prompted in zip(model.image_encoder(images), batch, strict=True):
        rated = rate(model, share(model, embedding), prompted.points)
        logits = draw_masks(model, rated, torch.arange(len(prompted.points)))  # [B, 3, h, w]
        target = prompted.targets
        logits = logits[..., : target.shape[-2], : target.shape[-1]]
        target = target[:, None].expand_as(logits)
        soft = logits / settings.sharpness
        masks = balanced(soft, target) + dice(soft, target)
        iou = overlap(logits.detach() > 0, target > 0.5)
        rating = F.mse_loss(rated.iou, iou)
        alike = likeness(embedding, prompted.points, prompted.targets, model.image_encoder.img_size)
        loss = (masks.amin(1) + masks.mean(1)).mean() / 2 + 2 * rating
        losses.append(loss + settings.likeness * alike)
        chosen.append(iou.gather(1, rated.iou.argmax(1, keepdim=True)))
    return torch.stack(losses).mean(), torch.cat(chosen).flatten()


def rate_at(step: int, settings: Settings) -> float:
    """Return the share of the highest learning rate at a step: warm-up, then half a cosine."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * done))


def train(model: nn.Module, pictures: Sequence[Picture], seed: int, settings: Settings) -> None:
    """Train the model in place, saying now and then how it goes."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.lr, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, settings))
    start_s, losses, ious = time.monotonic(), [], []
    for step in range(1, settings.steps + 1):
        chosen = rng.integers(len(pictures), size=settings.images)
        batch = [draw(pictures[i], settings, rng) for i in chosen]
        loss, iou = loss_of(model, batch, settings)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        ious.append(iou.mean().item())
        if step % 25 == 0 or step == settings.steps:
            spent_s = time.monotonic() - start_s
            print(
                f"step {step}/{settings.steps}: loss {np.mean(losses[-25:]):.3f}, IoU "
                f"{np.mean(ious[-25:]):.3f}, {spent_s / step:.2f} s a step",
                file=sys.stderr,
                flush=True,
            )


@click.command(context_settings={"show_default": True})
@click.option("--out", type=Path, default=Path("weights/tiny_sam.safetensors"), help="File.")
@click.option("--seed", default=0, help="Of weights, images, crops and points.")
@click.option("--city-seed", default=1000, help="Of the first city; each scene has a city.")
@click.option("--scenes", default=32, help="That many cities, the first scene of each.")
@click.option("--steps", default=Settings.steps, help="Of one image each.")
def main(out: Path, seed: int, city_seed: int, scenes: int, steps: int) -> None:
    """Train the tiny SAM on the true segments of made-up cities and write its weights."""
    from pipeline.superpixels.sam import build

    pictures = draw_pictures(city_seed, scenes, TIMES_S)
    torch.set_num_threads(1)  # drawing, with numba's threads, has set torch's to every core
    torch.set_flush_denormal(True)  # squares of tiny gradients made a step ten times slower
    torch.manual_seed(seed)
    model = build(TINY).train()
    start_near(model, Settings())
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(pictures)} pictures, {count / 1e6:.2f} million parameters", file=sys.stderr)
    train(model, pictures, seed, Settings(steps=steps))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), out)
    click.echo(out)


if __name__ == "__main__":
    run_main(main)

"""SAM masks on a GPU: images a second of ours, beside the package's own mask generator.

    SAM_CHECKPOINT=sam_vit_h.pth python -m benchmarks.gpu_sam [--images FOLDER] [--rounds 3]

The weights decide how many masks there are to sort out, so the figure of ViT-H needs its published
checkpoint; the smaller ones do as well and are named in the output. The package's generator needs
torchvision, which this project does not install: where it is absent, that line is left out.
"""

import argparse
import functools
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from benchmarks import gpu_timing
from benchmarks.engines import DATA
from pipeline.errors import UserError, check
from pipeline.image import decode_image

MODULE = "pipeline.superpixels.sam"
BATCHES = (1, 4)  # images through the encoder at once


def load_source() -> ModuleType | None:
    """Return the SAM superpixel source, or None where this version of the code has none."""
    try:
        return importlib.import_module(MODULE)
    except ModuleNotFoundError as error:
        print(f"SAM: left out (module '{error.name}' is not here)")
        return None


def read_images(folder: Path, limit: int) -> list[np.ndarray]:
    """Return native images [H, W, 3] uint8 of a folder.

    Raises:
        UserError: there is none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    check(bool(found), f"--images {folder}: must hold JPEG or PNG files, got none; give a folder")
    return [decode_image(path) for path in found[:limit]]


def ours(
    source: ModuleType, checkpoint: str, device: torch.device, images: list[np.ndarray]
) -> dict[str, Callable[[], object]]:
    """Return our contestants: number formats and numbers of images at once."""
    runs = {}
    for autocast in ("none", "bfloat16"):
        for at_once in BATCHES:
            config = source.Config(checkpoint=checkpoint)
            names = {field.name for field in fields(config)}
            wanted = {"autocast": autocast, "images_per_batch": at_once}
            config = replace(config, **{k: v for k, v in wanted.items() if k in names})
            segmenter = source.load(config, str(device))
            runs[f"ours, {autocast}, {at_once} at once"] = lambda segmenter=segmenter: (
                segmenter.segment_images(images, [None] * len(images))
            )
    return runs


def reference(
    checkpoint: str, device: torch.device, images: list[np.ndarray]
) -> dict[str, Callable[[], object]]:
    """Return the package's generator with all defaults; empty where it cannot run."""
    try:
        importlib.import_module("torchvision")
        package = importlib.import_module("segment_anything")
    except (ImportError, RuntimeError) as error:  # torchvision of another torch raises RuntimeError
        print(f"the package's generator: left out ({error})")
        return {}
    for name, build in package.sam_model_registry.items():
        try:
            model = build(checkpoint=checkpoint).to(device)
        except RuntimeError:  # weights of another size
            continue
        print(f"weights: {name}")
        generate = package.SamAutomaticMaskGenerator(model).generate
        return {"the package's generator": functools.partial(_each, generate, images)}
    print("the package's generator: left out (the weights are of no published size)")
    return {}


def _each(generate: Callable, images: list[np.ndarray]) -> None:
    for image in images:
        generate(image)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=DATA / "nuscenes" / "samples")
    parser.add_argument("--limit", type=int, default=4, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--checkpoint", default=os.environ.get("SAM_CHECKPOINT", ""))
    args = parser.parse_args(arguments)
    device = gpu_timing.open_device(args.device)
    source = load_source()
    if source is None:
        return
    if not args.checkpoint:
        print("SAM: left out (no checkpoint; set SAM_CHECKPOINT to the file of sam_vit_h)")
        return
    images = read_images(args.images, args.limit)
    runs = ours(source, args.checkpoint, device, images)
    runs |= reference(args.checkpoint, device, images)
    print(f"{gpu_timing.describe(device)}; {len(images)} images {images[0].shape[:2]}")
    memory = {name: gpu_timing.peak_mb(run, device) for name, run in runs.items()}
    for name, each in gpu_timing.time_in_turns(runs, device, args.rounds).items():
        rate = len(images) / each.median_s
        print(f"{name:32}{rate:8.3f} images/s, peak {gpu_timing.in_mb(memory[name])} MB")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))

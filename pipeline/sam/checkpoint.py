"""From a checkpoint of SAM to a network that fits it, or one line that says why it does not.

Looked for in --set checkpoint=PATH, SAM_CHECKPOINT, weights/ under its published name. On the
made-up city the tiny one that ships stands in for the published ones.
"""

import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import nn

from pipeline.errors import UserError, check
from pipeline.sam.settings import Settings
from pipeline.sam.shape import SamShape, read_shape
from pipeline.tensor_files import WEIGHTS, file_hash, mismatch, read_tensors

VARIABLE = "SAM_CHECKPOINT"
TINY_FILE = "tiny_sam.safetensors"
TINY_THRESHOLDS = {"predicted_iou": 0.05, "stability": 0.1}
_DEFAULTS = {field.name: field.default for field in fields(Settings)}
PUBLISHED = {
    "sam_vit_h_4b8939.pth": "2.6 GB, Seal's",
    "sam_vit_l_0b3195.pth": "1.2 GB",
    "sam_vit_b_01ec64.pth": "375 MB",
}
URL = "https://dl.fbaipublicfiles.com/segment_anything/"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet, 0 .. 255
MACHINE_FIELDS = ("checkpoint", "compile", "images_per_batch", "prompts_per_batch")
CITY = "synthetic"


def for_dataset(settings: Settings, dataset: str) -> Settings:
    """Return the settings with what a data set asks for: the city has a model of its own.

    That one is never as sure of itself as the published ones: thresholds that the user left at
    their defaults become TINY_THRESHOLDS.
    """
    if dataset != CITY or settings.checkpoint or os.environ.get(VARIABLE):
        return settings
    untouched = {k: v for k, v in TINY_THRESHOLDS.items() if getattr(settings, k) == _DEFAULTS[k]}
    return replace(settings, checkpoint=str(WEIGHTS / TINY_FILE), **untouched)


def find_checkpoint(settings: Settings) -> Path:
    """Return the checkpoint's path.

    Raises:
        UserError: it is not there, or none is.
    """
    given = settings.checkpoint or os.environ.get(VARIABLE, "")
    if given:
        path = Path(given).expanduser()
        check(
            path.is_file(),
            f"sam: checkpoint must exist, got {path}; correct {VARIABLE} or --set checkpoint=PATH",
        )
        return path
    for name in PUBLISHED:
        if (WEIGHTS / name).is_file():
            return WEIGHTS / name
    files = ", ".join(f"{name} ({what})" for name, what in PUBLISHED.items())
    raise UserError(
        f"sam: checkpoint must be on this machine, got none; download one of {files} from {URL} "
        f"and set {VARIABLE}=PATH, or put it into weights/"
    )


def load_network(path: Path, build: Callable[[SamShape], nn.Module]) -> tuple[nn.Module, SamShape]:
    """Return the network of a checkpoint, float32, on the CPU, and its sizes.

    Args:
        path: .safetensors, or what torch.load reads as tensors alone.
        build: makes a network of these sizes.

    Raises:
        UserError: no such file, a damaged one, another model's, or tensors that do not fit.
    """
    state = read_tensors(path)
    shape = read_shape(str(path), state)
    with torch.device("meta"):
        model = build(shape)
    trouble = mismatch(model.state_dict(), state)
    check(
        not trouble,
        f"{path}: tensors must be those of SAM's {shape.variant}, got {trouble}; "
        "give the published file",
    )
    model.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    model.pixel_mean = torch.tensor(MEAN).view(3, 1, 1)  # not in the file
    model.pixel_std = torch.tensor(STD).view(3, 1, 1)
    return model.requires_grad_(False).eval(), shape


def identify(settings: Settings) -> dict[str, str]:
    """Return what a store records of the checkpoint instead of its path: a hash of the file.

    Raises:
        UserError: no checkpoint.
    """
    return {"checkpoint_sha256": file_hash(find_checkpoint(settings))}


def missing(settings: Settings) -> str | None:
    """Return what keeps the source from running here, or None."""
    try:
        find_checkpoint(settings)
    except UserError as error:
        has_tiny = (WEIGHTS / TINY_FILE).is_file()
        return f"{'usable on the made-up city alone; ' * has_tiny}{error}"
    return None

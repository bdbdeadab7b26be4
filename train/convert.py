"""Weights out: plain safetensors with a JSON card, or SLidR's layout.

In: weights of any kind that train.weights reads. Out: a file of the kind that its name asks for.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from pipeline.errors import UserError, check
from pipeline.files import write_atomically
from train.recipes import Network
from train.weights import HEAD, Weights, card_of, card_path, read_weights


def convert(source: Path, target: Path) -> list[Path]:
    """Write a network into another kind of file and return what was written.

    Args:
        source: as `train.weights.read_weights`.
        target: '*.safetensors' (with a card, '*.json', beside it), or '*.pt', SLidR's layout.

    Raises:
        UserError: a source that is none, or a target that is there or has another ending.
    """
    check(
        target.suffix in (".safetensors", ".pt"),
        f"{target}: must end in .safetensors or .pt (SLidR's layout), got '{target.suffix}'",
    )
    files = [target, card_path(target)] if target.suffix == ".safetensors" else [target]
    there = [str(file) for file in files if file.exists()]
    if there:
        raise UserError(f"{', '.join(there)}: must not be there yet; choose another name")
    weights = read_weights(source)
    if target.suffix == ".pt":
        own = weights.network
        if (own.widths, own.depths) != (Network().widths, Network().depths):
            print("note: SLidR's own code builds MinkUNet34 alone", file=sys.stderr)
        buffer = io.BytesIO()
        torch.save(slidr_layout(weights), buffer)
        write_atomically(target, buffer.getvalue())
        return files
    tensors = {**weights.state, **{HEAD + key: value for key, value in weights.head.items()}}
    data = save({key: value.contiguous() for key, value in tensors.items()})
    card = json.dumps(card_of(weights, data), indent=1)
    write_atomically(files[1], card.encode())
    write_atomically(target, data)
    return files


def slidr_layout(weights: Weights) -> dict[str, Any]:
    """Return the content of a model.pt that SLidR's downstream code and `read_weights` take.

    `model_images` holds the head alone (SLidR calls it decoder.0): the teacher is a file that its
    users have.

    Source: method.md 3.1 and the file layout in minkunet_keys.txt (valeoai/SLidR).
    """
    config = {
        "model_points": "minkunet",
        "kernel_size": 3,
        "bn_momentum": weights.network.bn_momentum,
        "model_n_out": weights.network.out_channels,
        "normalize_features": True,
        "cylindrical_coordinates": weights.voxels.kind == "cylindrical",
        "voxel_size": weights.voxels.size_m,
        "selkie": json.dumps(weights.facts),
    }
    decoder = {f"decoder.0.{k.removeprefix('project.')}": v for k, v in weights.head.items()}
    return {
        "model_points": weights.state,
        "model_images": decoder,
        "epoch": weights.epochs,
        "config": config,
    }

"""From a checkpoint file to a model that fits it, or one line that says why it does not.

Strict: every needed key must be there with its shape, and what is left over must be known. A
published loader that skips what does not fit gives a model that runs and segments noise.
"""

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import check
from pipeline.tensor_files import read_tensors
from pipeline.xdecoder.box_decoder import BoxDecoder
from pipeline.xdecoder.deformable import DeformablePixelDecoder
from pipeline.xdecoder.family import SEEM_KEYS, XDECODER_KEYS, Family
from pipeline.xdecoder.focalnet import FocalNet
from pipeline.xdecoder.masked_decoder import MaskedDecoder
from pipeline.xdecoder.model import PanopticModel
from pipeline.xdecoder.pixel_decoder import PixelDecoder
from pipeline.xdecoder.shapes import (
    Shapes,
    Unstored,
    box_decoder_shape,
    encoder_shape,
    focal_shape,
    masked_decoder_shape,
    num_points,
    swin_shape,
    text_shape,
)
from pipeline.xdecoder.swin import Swin

SHOWN = 3  # names per kind of trouble in a message


def load_model(
    path: Path, family: Family, unstored: Unstored | None = None, ignore_keys: tuple[str, ...] = ()
) -> PanopticModel:
    """Return the model of a checkpoint, float32, on the CPU.

    Args:
        path: .safetensors, or what torch.load reads as tensors alone; a flat dict of tensors.
        family: which model it is.
        unstored: what shapes do not tell, where it is not what was published.
        ignore_keys: patterns of further keys that may be left over.

    Raises:
        UserError: no such file, a damaged one, another model's, or keys or shapes that do not fit.
    """
    state = read_tensors(path)
    model = fitting_model(path, state, family, unstored, ignore_keys)
    model.load_state_dict({key: state[key].float() for key in model.state_dict()}, assign=True)
    return model.requires_grad_(False)


def fitting_model(
    path: Path,
    state: Mapping[str, Tensor],
    family: Family,
    unstored: Unstored | None = None,
    ignore_keys: tuple[str, ...] = (),
) -> PanopticModel:
    """Return the model of a checkpoint's sizes, on the meta device; arguments as `load_model`.

    Raises:
        UserError: another model's checkpoint, or keys or shapes that do not fit.
    """
    check_family(path, family, state)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    model = build(Shapes(str(path), family.name, shapes), family, unstored or Unstored())
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    check_fits(path, family, wanted, shapes, ignore_keys)
    return model


def build(shapes: Shapes, family: Family, unstored: Unstored) -> PanopticModel:
    """Return a model of these sizes without weights (on the meta device)."""
    with torch.device("meta"):
        text, encoder = text_shape(shapes, unstored), encoder_shape(shapes, unstored)
        if family.has_proposals:
            backbone = Swin(swin_shape(shapes))
            decoder = box_decoder_shape(shapes, unstored)
            points = num_points(shapes, decoder)
            sizes = (backbone.widths, decoder.dim, decoder.mask_dim, encoder, points)
            pixel_decoder = DeformablePixelDecoder(*sizes)
            predictor = BoxDecoder(decoder, points, text)
        else:
            backbone = FocalNet(focal_shape(shapes))
            decoder = masked_decoder_shape(shapes, unstored)
            pixel_decoder = PixelDecoder(backbone.widths, decoder.dim, decoder.mask_dim, encoder)
            predictor = MaskedDecoder(decoder, text, family)
        return PanopticModel(family, backbone, pixel_decoder, predictor)


def check_family(path: Path, family: Family, keys: Collection[str]) -> None:
    """Refuse SEEM's weights as X-Decoder's and the other way round: names and shapes are the same.

    Raises:
        UserError: keys that only the other model's training leaves, and none of this one's.
    """
    traces = {"seem": SEEM_KEYS, "xdecoder": XDECODER_KEYS}
    if family.name not in traces:
        return
    found = {name for name, patterns in traces.items() if matching(keys, patterns)}
    check(
        family.name in found or not found,
        f"{path}: must be a checkpoint of {family.name}, got one of {', '.join(found)}; "
        f"use --source {', '.join(found)}, or give another file",
    )


def matching(keys: Collection[str], patterns: tuple[str, ...]) -> list[str]:
    """Return the keys that match one of the patterns, `*` standing for anything."""
    return [key for key in keys if any(fnmatchcase(key, pattern) for pattern in patterns)]


def check_fits(
    path: Path,
    family: Family,
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    ignore_keys: tuple[str, ...],
) -> None:
    """Compare names and shapes of a network with those of a file.

    Raises:
        UserError: missing keys, other shapes, or keys that nothing is known about.
    """
    missing = sorted(wanted.keys() - found.keys())
    other = sorted(key for key in wanted.keys() & found.keys() if wanted[key] != found[key])
    left = found.keys() - wanted.keys()
    extra = sorted(left - set(matching(left, family.unneeded_keys + ignore_keys)))
    shapes = [f"{key} {list(found[key])} for {list(wanted[key])}" for key in other]
    trouble = {"missing": missing, "of another shape": shapes, "unexpected": extra}
    parts = [f"{len(names)} {kind} ({_some(names)})" for kind, names in trouble.items() if names]
    advice = "give the published file"
    if parts and not missing and not other:
        advice += ", or --set ignore_keys=PATTERN where they are harmless"
    check(
        not parts,
        f"{path}: keys must be those of {family.name}, got {'; '.join(parts)}; {advice}",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")

"""Where the tests find outputs of the published code, and one set of them run through ours."""

import functools
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.image import decode_image
from pipeline.xdecoder.checkpoint import load_model
from pipeline.xdecoder.family import OPENSEED, SEEM, XDECODER, Family
from pipeline.xdecoder.masked_decoder import Prediction
from pipeline.xdecoder.model import PanopticModel, normalize
from pipeline.xdecoder.pixel_decoder import PixelFeatures
from pipeline.xdecoder.shapes import Unstored
from pipeline.xdecoder.text import class_vectors
from pipeline.xdecoder.tokenizer import Tokenizer, tokenizer_of

DATA = Path(os.environ.get("SELKIE_DATA") or Path(__file__).parents[3] / "../shared/data")
FOLDER = Path(os.environ.get("SELKIE_GOLDEN") or DATA / "golden-xdecoder")
SETS = sorted(path.parent for path in FOLDER.glob("*/meta.json"))
FAMILIES = {"seem": SEEM, "xdecoder": XDECODER, "openseed": OPENSEED}
absent = pytest.param(None, marks=pytest.mark.skip(f"no golden data at {FOLDER}; SELKIE_GOLDEN"))


def name(folder: Path | None) -> str:
    return folder.name if folder else "absent"


each_set = pytest.mark.parametrize("folder", SETS or [absent], ids=name)


def file(relative: str) -> Path:
    """Return a file of the golden folder, or skip."""
    if not (FOLDER / relative).exists():
        pytest.skip(f"no {relative} at {FOLDER}; set SELKIE_GOLDEN")
    return FOLDER / relative


def tiny_tokenizer() -> Tokenizer:
    return tokenizer_of(file("tiny_tokenizer/merges.txt").read_text().splitlines()[1:])


def family_of(meta: dict) -> Family:
    """Return the family of a set; SEEM outside Seal's copy ends with another resize."""
    decoder = meta["config"]["MODEL"]["DECODER"]["NAME"]
    family = FAMILIES[next(known for known in FAMILIES if decoder.startswith(known))]
    if family is SEEM and "Segment-Any-Point-Cloud" not in meta["upstream"]:
        family = replace(family, output_resize="bicubic")
    return replace(family, temperature=meta.get("pano_temperature", family.temperature))


@dataclass(frozen=True)
class Run:
    """Our outputs for one set, and theirs."""

    meta: dict
    tensors: dict[str, np.ndarray]
    language: dict[str, np.ndarray]
    model: PanopticModel
    maps: list[torch.Tensor]
    encoded: torch.Tensor  # by the pixel decoder's transformer, [1, D, h, w] or a tuple of such
    features: PixelFeatures
    classes: torch.Tensor
    steps: list[Prediction]


@functools.cache
def run(folder: Path) -> Run:
    meta = json.loads((folder / "meta.json").read_text())
    config = meta["config"]["MODEL"]
    decoder = config["DECODER"]
    unstored = Unstored(decoder["NHEADS"], config["TEXT"]["HEADS"], decoder["NUM_OBJECT_QUERIES"])
    path = folder / "state_dict_fp16.safetensors"
    model = load_model(path, family_of(meta), unstored)
    pixel_decoder = model.sem_seg_head["pixel_decoder"]
    encoded = []
    pixel_decoder.transformer.register_forward_hook(lambda *call: encoded.append(call[2]))
    image = torch.from_numpy(decode_image(folder / "image.png")).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        language = model.predictor.lang_encoder
        classes = class_vectors(language, tiny_tokenizer(), meta["class_names"])
        maps = model.backbone(normalize(image))
        features = pixel_decoder(maps)
        if model.family.has_proposals:
            steps = [model.predictor(features, classes)]
        else:
            steps = list(model.predictor.steps(features, classes))
    tensors, texts = (dict(np.load(folder / f"{kind}.npz")) for kind in ("tensors", "language"))
    return Run(meta, tensors, texts, model, maps, encoded[0], features, classes, steps)

"""Networks of the family in toy sizes with random weights, and their checkpoints."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.panoptic import randomize
from pipeline.xdecoder.box_decoder import BoxDecoder
from pipeline.xdecoder.deformable import DeformablePixelDecoder
from pipeline.xdecoder.family import Family
from pipeline.xdecoder.focalnet import FocalNet, FocalShape
from pipeline.xdecoder.masked_decoder import DecoderShape, MaskedDecoder
from pipeline.xdecoder.model import PanopticModel
from pipeline.xdecoder.pixel_decoder import EncoderShape, PixelDecoder
from pipeline.xdecoder.swin import Swin, SwinShape
from pipeline.xdecoder.text import TextShape

DIM, MASK_DIM, HEADS, HIDDEN, POINTS = 32, 16, 8, 24, 2
CLIP_TOKENS = 49408


def tiny_model(
    family: Family, num_queries: int = 12, seed: int = 0, vocabulary: int = 300, is_dw: bool = False
) -> PanopticModel:
    """Return a network with weights that make it say something about any image."""
    text = TextShape(16, HEADS, 1, 20, vocabulary, 24)
    encoder = EncoderShape(HIDDEN, HEADS, 1)
    if family.has_proposals:
        backbone = Swin(SwinShape(8, (1, 2, 1, 1), (1, 2, 2, 4), 3))
        pixel_decoder = DeformablePixelDecoder(backbone.widths, DIM, MASK_DIM, encoder, POINTS)
        shape = DecoderShape(DIM, MASK_DIM, HIDDEN, HEADS, 2, num_queries, 4)
        predictor = BoxDecoder(shape, POINTS, text)
    else:
        backbone = FocalNet(FocalShape(8, (1, 1, 2, 1), ((3, 5),) * 4, is_dw))
        pixel_decoder = PixelDecoder(backbone.widths, DIM, MASK_DIM, encoder)
        shape = DecoderShape(DIM, MASK_DIM, HIDDEN, HEADS, 3, num_queries, 3)
        predictor = MaskedDecoder(shape, text, family)
    model = PanopticModel(family, backbone, pixel_decoder, predictor)
    randomize(model, seed)
    return model


def save(model: PanopticModel, path: Path) -> Path:
    """Write a checkpoint in half precision."""
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, path)
    return path


def tiny_checkpoint(path: Path, family: Family, seed: int = 0, num_queries: int = 12) -> Path:
    """Write a checkpoint with CLIP's vocabulary, as a user's would have it."""
    model = tiny_model(family, num_queries, seed, CLIP_TOKENS)
    # its text encoder says nearly the same of all classes; a steep scale tells them apart
    model.predictor.lang_encoder.logit_scale.data.fill_(8.0)
    return save(model, path)


def unit_classes(count: int = 134, dim: int = 24, seed: int = 1) -> torch.Tensor:
    """Return random class vectors of length one."""
    vectors = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def random_image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Return [1, 3, height, width] float, 0 .. 255: blocks of color with noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=generator) * 255
    image = torch.nn.functional.interpolate(coarse, (height, width))
    return (image + 20 * torch.randn(image.shape, generator=generator)).clamp(0, 255)

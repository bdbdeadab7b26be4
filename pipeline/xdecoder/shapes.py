"""The sizes of a network, read from the shapes in its checkpoint; nobody has to say 'L' or 'T'."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.xdecoder.focalnet import FocalShape
from pipeline.xdecoder.masked_decoder import DecoderShape
from pipeline.xdecoder.pixel_decoder import EncoderShape
from pipeline.xdecoder.swin import SwinShape
from pipeline.xdecoder.text import TextShape

PIXEL_DECODER = "sem_seg_head.pixel_decoder."
PREDICTOR = "sem_seg_head.predictor."
TEXT = PREDICTOR + "lang_encoder."


@dataclass(frozen=True)
class Unstored:
    """What shapes do not tell. All published configurations have these numbers."""

    heads: int = 8  # of attention to images
    text_heads: int = 8
    num_proposals: int = 300  # OpenSeeD's queries; those of the others are learned and stored


@dataclass(frozen=True)
class Shapes:
    """Names and shapes of a checkpoint."""

    where: str  # for messages: the file
    model: str  # for messages: what it should hold
    shapes: Mapping[str, tuple[int, ...]]

    def of(self, key: str) -> tuple[int, ...]:
        """Return a key's shape.

        Raises:
            UserError: no such key.
        """
        if key not in self.shapes:
            raise UserError(
                f"{self.where}: must hold '{key}', got {len(self.shapes)} keys without it; "
                f"give a checkpoint of {self.model}"
            )
        return self.shapes[key]

    def count(self, prefix: str) -> int:
        """Return how many numbered children 'prefix<i>.' there are."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
        found = {match[1] for key in self.shapes if (match := pattern.match(key))}
        if not found:
            self.of(f"{prefix}0")
        return len(found)


def focal_shape(shapes: Shapes) -> FocalShape:
    """Return the sizes of the FocalNet below `backbone.`."""
    depths, kernels = [], []
    for stage in range(shapes.count("backbone.layers.")):
        blocks = f"backbone.layers.{stage}.blocks."
        depths.append(shapes.count(blocks))
        levels = f"{blocks}0.modulation.focal_layers."
        numbers = range(shapes.count(levels))
        kernels.append(tuple(shapes.of(f"{levels}{i}.0.weight")[-1] for i in numbers))
    return FocalShape(
        width=shapes.of("backbone.patch_embed.proj.weight")[0],
        depths=tuple(depths),
        kernels=tuple(kernels),
        is_depthwise="backbone.layers.0.blocks.0.dw1.weight" in shapes.shapes,
    )


def swin_shape(shapes: Shapes) -> SwinShape:
    """Return the sizes of the Swin transformer below `backbone.`."""
    stages = range(shapes.count("backbone.layers."))
    table = "backbone.layers.{}.blocks.0.attn.relative_position_bias_table"
    num_offsets = shapes.of(table.format(0))[0]
    return SwinShape(
        width=shapes.of("backbone.patch_embed.proj.weight")[0],
        depths=tuple(shapes.count(f"backbone.layers.{stage}.blocks.") for stage in stages),
        heads=tuple(shapes.of(table.format(stage))[1] for stage in stages),
        window=(math.isqrt(num_offsets) + 1) // 2,
    )


def masked_decoder_shape(shapes: Shapes, unstored: Unstored) -> DecoderShape:
    """Return the sizes of the masked-attention decoder."""
    num_queries, dim = shapes.of(PREDICTOR + "query_feat.weight")
    return DecoderShape(
        dim=dim,
        mask_dim=shapes.of(PREDICTOR + "mask_embed.layers.2.weight")[0],
        hidden=shapes.of(PREDICTOR + "transformer_ffn_layers.0.linear1.weight")[0],
        heads=unstored.heads,
        depth=shapes.count(PREDICTOR + "transformer_ffn_layers."),
        num_queries=num_queries,
        num_levels=shapes.of(PREDICTOR + "level_embed.weight")[0],
    )


def box_decoder_shape(shapes: Shapes, unstored: Unstored) -> DecoderShape:
    """Return the sizes of OpenSeeD's decoder."""
    dim = shapes.of(PREDICTOR + "class_embed")[0]
    return DecoderShape(
        dim=dim,
        mask_dim=shapes.of(PREDICTOR + "mask_embed.layers.2.weight")[0],
        hidden=shapes.of(PREDICTOR + "decoder.layers.0.linear1.weight")[0],
        heads=unstored.heads,
        depth=shapes.count(PREDICTOR + "decoder.layers."),
        num_queries=unstored.num_proposals,
        num_levels=shapes.of(PIXEL_DECODER + "transformer.level_embed")[0],
    )


def encoder_shape(shapes: Shapes, unstored: Unstored) -> EncoderShape:
    """Return the sizes of the pixel decoder's transformer."""
    layers = PIXEL_DECODER + "transformer.encoder.layers."
    return EncoderShape(
        hidden=shapes.of(layers + "0.linear1.weight")[0],
        heads=unstored.heads,
        depth=shapes.count(layers),
    )


def num_points(shapes: Shapes, decoder: DecoderShape) -> int:
    """Return how many places a head of deformable attention reads per level."""
    samples = shapes.of(PREDICTOR + "decoder.layers.0.cross_attn.attention_weights.weight")[0]
    return samples // (decoder.heads * decoder.num_levels)


def text_shape(shapes: Shapes, unstored: Unstored) -> TextShape:
    """Return the sizes of the text encoder."""
    vocabulary, width = shapes.of(TEXT + "lang_encoder.token_embedding.weight")
    return TextShape(
        width=width,
        heads=unstored.text_heads,
        depth=shapes.count(TEXT + "lang_encoder.resblocks."),
        context=shapes.of(TEXT + "lang_encoder.positional_embedding")[0],
        vocabulary=vocabulary,
        out=shapes.of(TEXT + "lang_proj")[1],
    )

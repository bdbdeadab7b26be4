"""What the tiny SAM is before any training: its sizes, its settings, its first weights."""

from dataclasses import dataclass

import torch
from torch import nn

from pipeline.sam.shape import SamShape

TINY = SamShape(
    width=96,
    depth=4,
    heads=3,
    mlp_ratio=4.0,
    patch=8,
    grid=26,
    window=13,
    global_blocks=(1, 3),
    dim=64,
    mask_channels=16,
    masks=3,
    decoder_depth=2,
    decoder_mlp=256,
    iou_depth=3,
    iou_width=64,
)


@dataclass(frozen=True)
class Settings:
    """How it is trained; all are our choices."""

    steps: int = 10_000
    images: int = 1  # per step
    prompts: int = 24  # per image
    lr: float = 1e-3  # AdamW, highest
    warmup: int = 20  # steps
    weight_decay: float = 0.01
    sharpness: float = 2.0  # logits are this much steeper than the loss needs: stability of edges
    min_pixels: int = 12  # smallest segment that is asked for by name
    zoom: float = 1.4  # largest
    position_scale: float = 1.5  # frequencies of positions against the package's
    nearness: float = 2.0  # how sharply prompts look at where they are before any training
    fixed_tokens: float = 0.2  # size of what all prompts have in common before any training
    loudness: float = 2.4  # of the layers that make masks: sqrt(6), from torch's start to He's
    likeness: float = 1.0  # weight of the loss on the embedding itself


@torch.no_grad()
def start_near(model: nn.Module, settings: Settings) -> None:
    """Let like look at like from the first step on, in place.

    Image and prompts carry the same random waves of their positions, and prompts soon the features
    of their place; with one matrix for queries and keys their product is largest where both agree.
    Left to itself training spends thousands of steps on finding that out.
    """
    model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix *= settings.position_scale
    transformer = model.mask_decoder.transformer
    inward = [layer.cross_attn_token_to_image for layer in transformer.layers]
    outward = [layer.cross_attn_image_to_token for layer in transformer.layers]
    for attention in [*inward, transformer.final_attn_token_to_image]:
        attention.k_proj.weight.mul_(settings.nearness)
        attention.q_proj.weight.copy_(attention.k_proj.weight)
        nn.init.orthogonal_(attention.v_proj.weight)  # what is found is handed on
        attention.out_proj.weight.copy_(attention.v_proj.weight.T)
    for attention in outward:
        attention.k_proj.weight.mul_(settings.nearness)
        attention.q_proj.weight.copy_(attention.k_proj.weight)
    for layer in transformer.layers:  # and every token has what the point's token brings
        layer.self_attn.q_proj.weight.copy_(layer.self_attn.k_proj.weight)
        nn.init.orthogonal_(layer.self_attn.v_proj.weight)
        layer.self_attn.out_proj.weight.copy_(layer.self_attn.v_proj.weight.T)
    decoder, prompts = model.mask_decoder, model.prompt_encoder
    fixed = [decoder.iou_token, decoder.mask_tokens, prompts.not_a_point_embed]
    for embedding in (*fixed, *prompts.point_embeddings):
        embedding.weight.mul_(settings.fixed_tokens)
    for part in (decoder.output_hypernetworks_mlps, decoder.output_upscaling):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.ConvTranspose2d):
                layer.weight.mul_(settings.loudness)

"""SAM's mask decoder, rearranged so that a prompt costs a quarter of the arithmetic.

In: one image's embedding and many one-point prompts. Out: predicted IoUs, then masks of those
prompts that are worth it. Same sums as the package's decoder, in another order:

- all prompts start from the same image tokens, so their first projections are made once;
- a projection of image tokens that only meets seven prompt tokens is moved to the prompt tokens
  (q . W x = (W' q) . x): 56 columns instead of 128 or 256;
- the last attention has only the tokens that are read, and nothing is upsampled before the
  predicted IoU is known, which needs no upsampling.

tests/pipeline/sam/test_decode.py compares with the package's own forward.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ImageTokens:
    """What all prompts of an image share."""

    tokens: Tensor  # [N, D] embedding plus the 'no mask' prompt, N = grid * grid
    positions: Tensor  # [N, D]
    keys: Tensor  # [E, N, c] of the first layer's token-to-image attention, E heads
    values: Tensor  # [E, N, c]
    queries: Tensor  # [N, E * c] of the first layer's image-to-token attention


@dataclass(frozen=True)
class Rated:
    """Prompts after the transformer, before any mask is made."""

    iou: Tensor  # [B, 3] predicted
    tokens: Tensor  # [B, N, D] the image as each prompt sees it
    mask_tokens: Tensor  # [B, 3, D]


def share(model: nn.Module, embedding: Tensor) -> ImageTokens:
    """Return what all prompts of an image share, from its embedding [D, grid, grid]."""
    prompts, first = model.prompt_encoder, model.mask_decoder.transformer.layers[0]
    tokens = (embedding + prompts.no_mask_embed.weight.view(-1, 1, 1)).flatten(1).T
    positions = prompts.get_dense_pe()[0].flatten(1).T
    placed = tokens + positions
    inward, outward = first.cross_attn_token_to_image, first.cross_attn_image_to_token
    return ImageTokens(
        tokens.contiguous(),
        positions.contiguous(),
        _heads(inward.k_proj(placed), inward).contiguous(),
        _heads(inward.v_proj(tokens), inward).contiguous(),
        outward.q_proj(placed),
    )


def rate(model: nn.Module, image: ImageTokens, points: Tensor) -> Rated:
    """Return predicted IoUs of one-point prompts.

    Args:
        model: the package's Sam.
        image: see `share`.
        points: [B, 2], x, y in pixels of the padded square image; float64 as the package has them.
    """
    decoder = model.mask_decoder
    labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
    sparse, _ = model.prompt_encoder((points[:, None], labels), None, None)
    fixed = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    prompt = torch.cat([fixed.expand(len(points), -1, -1), sparse], dim=1)  # [B, T, D]
    tokens = image.tokens
    queries = prompt
    for number, layer in enumerate(decoder.transformer.layers):
        queries = _among_themselves(layer, queries, prompt)
        placed = tokens + image.positions if number else None
        if number == 0:
            seen = _look_at_shared(layer.cross_attn_token_to_image, queries + prompt, image)
        else:
            seen = _look_at(layer.cross_attn_token_to_image, queries + prompt, placed, tokens)
        queries = layer.norm2(queries + seen)
        queries = layer.norm3(queries + layer.mlp(queries))
        attention = layer.cross_attn_image_to_token
        if number == 0:
            change = _answer_shared(attention, image.queries, queries + prompt, queries)
        else:
            change = _answer(attention, placed, queries + prompt, queries)
        tokens = layer.norm4(change.add_(tokens))
    transformer = decoder.transformer
    read = [0, *range(2, 1 + decoder.num_mask_tokens)]  # IoU, and the masks of ambiguous prompts
    last, prompt = queries[:, read], prompt[:, read]
    placed = tokens + image.positions
    seen = _look_at(transformer.final_attn_token_to_image, last + prompt, placed, tokens)
    last = transformer.norm_final_attn(last + seen)
    return Rated(decoder.iou_prediction_head(last[:, 0])[:, 1:], tokens, last[:, 1:])


def draw(model: nn.Module, rated: Rated, kept: Tensor) -> Tensor:
    """Return the mask logits [B, 3, 4 grid, 4 grid] of the prompts `kept` [B] (positions).

    Both upsamplings double with a stride equal to the kernel, so each is one matrix product on
    tokens that stay where they are; pixels are put in order at the very end, for three channels.
    """
    decoder = model.mask_decoder
    widen, norm, _, finish, _ = decoder.output_upscaling
    tokens = rated.tokens[kept]
    grid = math.isqrt(tokens.shape[1])
    columns = [
        mlp(rated.mask_tokens[kept, number])
        for number, mlp in enumerate(decoder.output_hypernetworks_mlps[1:])
    ]
    columns = torch.stack(columns, dim=1)  # [B, 3, c]
    pixels = _quadruple(tokens, widen).unflatten(-1, (4, -1))
    pixels = F.gelu(F.layer_norm(pixels, pixels.shape[-1:], norm.weight, norm.bias, norm.eps))
    pixels = F.gelu(_quadruple(pixels, finish)).unflatten(-1, (4, -1)).flatten(1, 3)
    logits = columns @ pixels.transpose(1, 2)  # [B, 3, N * 4 * 4]
    shape = logits.shape[:2]
    logits = logits.view(*shape, grid, grid, 2, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5, 7)
    return logits.reshape(*shape, 4 * grid, 4 * grid)


def _quadruple(pixels: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """Return the four pixels [..., 4 * c] that a stride-2 kernel of 2 x 2 makes of each."""
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [4 * c, inside]
    return F.linear(pixels, weight, layer.bias.repeat(4))


def _among_themselves(layer: nn.Module, queries: Tensor, prompt: Tensor) -> Tensor:
    if layer.skip_first_layer_pe:
        return layer.norm1(layer.self_attn(q=queries, k=queries, v=queries))
    placed = queries + prompt
    return layer.norm1(queries + layer.self_attn(q=placed, k=placed, v=queries))


def _heads(tokens: Tensor, attention: nn.Module) -> Tensor:
    """Return [..., E, T, c] of [..., T, E * c]."""
    return tokens.unflatten(-1, (attention.num_heads, -1)).transpose(-2, -3)


def _by_head(layer: nn.Linear, heads: int) -> Tensor:
    """Return the weight [E, c, D] of a projection into heads."""
    return layer.weight.unflatten(0, (heads, -1))


def _look_at_shared(attention: nn.Module, asking: Tensor, image: ImageTokens) -> Tensor:
    """Return token-to-image attention [B, T, D] where all prompts see the same image tokens."""
    query = _heads(attention.q_proj(asking), attention)  # [B, E, T, c]
    count, _, length, channels = query.shape
    query = query.transpose(0, 1).flatten(1, 2) / math.sqrt(channels)  # [E, B * T, c]
    found = (query @ image.keys.transpose(1, 2)).softmax(-1) @ image.values
    found = found.unflatten(1, (count, length)).permute(1, 2, 0, 3).flatten(2)
    return attention.out_proj(found)


def _look_at(attention: nn.Module, asking: Tensor, placed: Tensor, tokens: Tensor) -> Tensor:
    """Return token-to-image attention [B, T, D]; keys and values are never made.

    The bias of the keys adds the same to all scores of a query, so softmax drops it.
    """
    query = _heads(attention.q_proj(asking), attention)  # [B, E, T, c]
    heads, length = query.shape[1:3]
    asked = query @ _by_head(attention.k_proj, heads) / math.sqrt(query.shape[-1])
    scores = asked.flatten(1, 2) @ placed.transpose(1, 2)  # [B, E * T, N]
    found = (scores.softmax(-1) @ tokens).unflatten(1, (heads, length))  # [B, E, T, D]
    found = found @ _by_head(attention.v_proj, heads).transpose(1, 2)  # [B, E, T, c]
    found = found.transpose(1, 2).flatten(2) + attention.v_proj.bias
    return attention.out_proj(found)


def _answer_shared(attention: nn.Module, queries: Tensor, placed: Tensor, prompt: Tensor) -> Tensor:
    """Return image-to-token attention [B, N, D] where all prompts have the same image tokens."""
    key = _heads(attention.k_proj(placed), attention)  # [B, E, T, c]
    heads, length, channels = key.shape[1:]
    asked = key.new_zeros(len(key), heads, length, heads, channels)  # block diagonal over heads
    asked.diagonal(dim1=1, dim2=3).copy_(key.permute(0, 2, 3, 1))
    scores = asked.flatten(3).flatten(1, 2) @ queries.T  # [B, E * T, N]
    return _mix(attention, scores, prompt)


def _answer(attention: nn.Module, tokens: Tensor, placed: Tensor, prompt: Tensor) -> Tensor:
    """Return image-to-token attention [B, N, D]; queries of the image are never made."""
    key = _heads(attention.k_proj(placed), attention)  # [B, E, T, c]
    heads = key.shape[1]
    asked = (key @ _by_head(attention.q_proj, heads)).flatten(1, 2)  # [B, E * T, D]
    bias = key @ attention.q_proj.bias.view(heads, -1, 1)  # [B, E, T, 1]
    scores = asked @ tokens.transpose(1, 2) + bias.flatten(1, 2)
    return _mix(attention, scores, prompt)


def _mix(attention: nn.Module, scores: Tensor, prompt: Tensor) -> Tensor:
    """Return what image tokens take from prompt tokens [B, N, D] by scores [B, E * T, N]."""
    value = _heads(attention.v_proj(prompt), attention)  # [B, E, T, c]
    heads, length, channels = value.shape[1:]
    scores = scores.unflatten(1, (heads, length)) / math.sqrt(channels)
    share = scores.softmax(2).flatten(1, 2)  # [B, E * T, N]
    outward = attention.out_proj.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)  # [E, c, D]
    offered = (value @ outward).flatten(1, 2)  # [B, E * T, D]
    return share.transpose(1, 2) @ offered + attention.out_proj.bias

"""The decoder of SEEM and X-Decoder: learned queries look at the image where their masks are.

In: pixel features and one text vector per class. Out: per query a score for each class and a mask.
`steps` hands out the prediction before the first layer and after each; only the last one counts,
the others steer where the next layer looks.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.xdecoder.attention import Attention, Perceptron
from pipeline.xdecoder.family import Family, Resize
from pipeline.xdecoder.pixel_decoder import (
    PixelFeatures,
    at_positions,
    flatten_level,
    mask_logits,
)
from pipeline.xdecoder.text import LanguageEncoder, TextShape

EPSILON = 1e-7  # added to norms before dividing, as upstream


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder."""

    dim: int
    mask_dim: int
    hidden: int  # of the perceptrons
    heads: int
    depth: int
    num_queries: int
    num_levels: int


@dataclass(frozen=True)
class Prediction:
    """What the queries say."""

    logits: Tensor  # [B, Q, K] one per class and query
    masks: Tensor  # [B, Q, H / 4, W / 4] logits
    blocked: Tensor | None = None  # [B, Q, L] bool, positions that the next layer does not look at


class CrossAttentionLayer(nn.Module):
    """Queries look at the image."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = Attention(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, place: Tensor, memory: Tensor, keys: Tensor, blocked: Tensor):
        """Return [B, Q, D]: x [B, Q, D] after looking at memory [B, L, D] through keys."""
        return self.norm(x + self.multihead_attn(x + place, keys, memory, blocked[:, None]))


class SelfAttentionLayer(nn.Module):
    """Queries look at each other."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, place: Tensor, blocked: Tensor | None) -> Tensor:
        """Return [B, Q, D] of x [B, Q, D]; blocked [Q, Q] True = does not see."""
        return self.norm(x + self.self_attn(x + place, x + place, x, blocked))


class FeedForwardLayer(nn.Module):
    """A perceptron per query."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, Q, D] of [B, Q, D]."""
        return self.norm(x + self.linear2(F.relu(self.linear1(x))))


class MaskedDecoder(nn.Module):
    """The decoder and its text encoder.

    Source: fact sheet xdecoder.md 6 and 7 (microsoft/X-Decoder, Apache-2.0).
    """

    def __init__(self, shape: DecoderShape, text: TextShape, family: Family) -> None:
        super().__init__()
        dim, heads, depth = shape.dim, shape.heads, shape.depth
        self.family = family
        self.num_queries = shape.num_queries
        self.query_feat = nn.Embedding(shape.num_queries, dim)
        self.query_embed = nn.Embedding(shape.num_queries, dim)
        self.level_embed = nn.Embedding(shape.num_levels, dim)
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(dim, heads) for _ in range(depth)
        )
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(dim, heads) for _ in range(depth)
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FeedForwardLayer(dim, shape.hidden) for _ in range(depth)
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.mask_embed = Perceptron(dim, dim, dim, shape.mask_dim)
        self.class_embed = nn.Parameter(torch.empty(dim, text.out))
        self.lang_encoder = LanguageEncoder(text)

    def forward(self, features: PixelFeatures, classes: Tensor) -> Prediction:
        """Return the prediction after the last layer; arguments as `steps`."""
        return deque(self.steps(features, classes), maxlen=1).pop()

    def steps(self, features: PixelFeatures, classes: Tensor) -> Iterator[Prediction]:
        """Yield the prediction before the first layer, then the one after each layer.

        Args:
            features: levels coarse first, as many as `level_embed` has.
            classes: [K, P] float unit vectors, one per class.
        """
        levels = features.levels
        keys = [at_positions(level) for level in levels]
        memory = [
            flatten_level(level) + self.level_embed.weight[i] for i, level in enumerate(levels)
        ]
        batch = len(features.mask_features)
        place = self.query_embed.weight.expand(batch, -1, -1)
        x = self.query_feat.weight.expand(batch, -1, -1)
        isolated = self._isolated(x)
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        prediction = self.predict(x, features.mask_features, classes, levels[0].shape[-2:])
        yield prediction
        for i, (look, talk, think) in enumerate(layers):
            now, after = i % len(levels), (i + 1) % len(levels)
            x = look(x, place, memory[now], memory[now] + keys[now], prediction.blocked)
            x = think(talk(x, place, isolated))
            size = levels[after].shape[-2:]
            prediction = self.predict(x, features.mask_features, classes, size)
            yield prediction

    def predict(
        self, x: Tensor, mask_features: Tensor, classes: Tensor, size: torch.Size
    ) -> Prediction:
        """Return what queries [B, Q, D] say now, and where a layer of that size may look."""
        z = self.decoder_norm(x)
        if self.family.has_class_query:
            z = gather_class_query(z)
        masks = mask_logits(self.mask_embed(z), mask_features)
        logits = class_logits(z @ self.class_embed, classes, self.lang_encoder.logit_scale)
        return Prediction(logits, masks, blocked_positions(masks, size, self.family))

    def _isolated(self, x: Tensor) -> Tensor | None:
        """Return which query [Q, Q] does not see which: the class query and the others."""
        if not self.family.has_class_query:
            return None
        is_class = torch.arange(x.shape[1], device=x.device) == x.shape[1] - 1
        return is_class[:, None] != is_class[None, :]


def unit(x: Tensor) -> Tensor:
    """Return vectors of length one along the last axis, up to upstream's epsilon."""
    return x / (x.norm(dim=-1, keepdim=True) + EPSILON)


def class_logits(vectors: Tensor, classes: Tensor, log_scale: Tensor) -> Tensor:
    """Return [B, Q, K]: scaled cosine of query vectors [B, Q, P] with class vectors [K, P]."""
    return log_scale.exp() * (unit(vectors) @ classes.T)


def gather_class_query(z: Tensor) -> Tensor:
    """Return [B, Q, D] whose last query is the mean of the others, weighted by likeness to it.

    Source: fact sheet xdecoder.md 7: softmax of cosines without scale, mean of unscaled vectors.
    """
    others, last = z[:, :-1], z[:, -1:]
    weight = (unit(last) @ unit(others).transpose(1, 2)).softmax(dim=-1)
    return torch.cat((others, weight @ others), dim=1)


def blocked_positions(masks: Tensor, size: torch.Size, family: Family) -> Tensor:
    """Return [B, Q, L] bool: where a query's mask is below one half; nowhere if that is everywhere.

    Args:
        masks: [B, Q, h, w] logits.
        size: of the level that is looked at next; L is its number of positions.
        family: says how masks are resized.
    """
    resized = resize(masks.float(), size, family.attention_resize)  # float: also under autocast
    blocked = resized.flatten(2).sigmoid() < 0.5
    return blocked & ~blocked.all(dim=-1, keepdim=True)


def resize(masks: Tensor, size: torch.Size | tuple[int, int], mode: Resize) -> Tensor:
    """Return [..., h', w'] of [..., h, w]; bicubic is antialiased, bilinear is not.

    Both leave maps that have the size already as they are.
    """
    if tuple(masks.shape[-2:]) == tuple(size):
        return masks
    flat = masks.reshape(1, -1, *masks.shape[-2:])
    out = F.interpolate(
        flat, size=tuple(size), mode=mode, align_corners=False, antialias=mode == "bicubic"
    )
    return out.reshape(*masks.shape[:-2], *size)

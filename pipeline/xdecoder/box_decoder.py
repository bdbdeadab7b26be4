"""OpenSeeD's decoder: the image proposes boxes, queries refine them and read around them.

In: pixel features and one text vector per class. Out: per query a score for each class and a mask,
as from the masked decoder; boxes only steer where the queries read.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.xdecoder.attention import Attention, Perceptron
from pipeline.xdecoder.deformable import DeformableAttention, pixel_centers
from pipeline.xdecoder.masked_decoder import DecoderShape, Prediction, class_logits
from pipeline.xdecoder.pixel_decoder import PixelFeatures, flatten_level, mask_logits
from pipeline.xdecoder.positions import sine_waves
from pipeline.xdecoder.text import LanguageEncoder, TextShape

SMALLEST_PROPOSAL = 0.05  # of the image, at the coarsest level; doubles from level to level
PROPOSAL_MARGIN = 0.01  # proposals that come nearer to 0 or 1 are not valid
LOGIT_EPS = 1e-5


@dataclass(frozen=True)
class Proposals:
    """The places of the image that became queries."""

    content: Tensor  # [B, Q, D]
    boxes: Tensor  # [B, Q, 4] x, y, width, height, 0 .. 1


class BoxLayer(nn.Module):
    """Queries look at each other, then around their boxes, then think."""

    def __init__(self, dim: int, hidden: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.cross_attn = DeformableAttention(dim, heads, levels, points)
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, place: Tensor, boxes: Tensor, memory: Tensor, sizes: list
    ) -> Tensor:
        """Return [B, Q, D] of x [B, Q, D]."""
        x = self.norm2(x + self.self_attn(x + place, x + place, x))
        x = self.norm1(x + self.cross_attn(x + place, boxes, memory, sizes))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class BoxStack(nn.Module):
    """The layers and what turns a box into a query's position."""

    def __init__(self, shape: DecoderShape, points: int) -> None:
        super().__init__()
        sizes = (shape.dim, shape.hidden, shape.heads, shape.num_levels, points)
        self.layers = nn.ModuleList(BoxLayer(*sizes) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.dim)
        self.ref_point_head = Perceptron(2 * shape.dim, shape.dim, shape.dim)


class BoxDecoder(nn.Module):
    """The decoder and its text encoder.

    Source: fact sheet xdecoder.md 11 (IDEA-Research/OpenSeeD, Apache-2.0). The box perceptron is
    stored once per layer upstream, as copies; here each layer reads its own copy.
    """

    def __init__(self, shape: DecoderShape, points: int, text: TextShape) -> None:
        super().__init__()
        dim = shape.dim
        self.num_queries = shape.num_queries
        self.enc_output = nn.Linear(dim, dim)
        self.enc_output_norm = nn.LayerNorm(dim)
        self._bbox_embed = Perceptron(dim, dim, dim, 4)
        self.bbox_embed = nn.ModuleList(Perceptron(dim, dim, dim, 4) for _ in range(shape.depth))
        self.decoder = BoxStack(shape, points)
        self.decoder_norm = nn.LayerNorm(dim)
        self.mask_embed = Perceptron(dim, dim, dim, shape.mask_dim)
        self.class_embed = nn.Parameter(torch.empty(dim, text.out))
        self.lang_encoder = LanguageEncoder(text)

    def forward(self, features: PixelFeatures, classes: Tensor) -> Prediction:
        """Return the prediction after the last layer.

        Args:
            features: levels fine first.
            classes: [K, P] float unit vectors, one per class.
        """
        levels = features.levels[::-1]  # the decoder counts from the coarsest
        sizes = [tuple(level.shape[-2:]) for level in levels]
        memory = torch.cat([flatten_level(level) for level in levels], dim=1)
        proposals = self.propose(memory, sizes, classes)
        x, boxes = proposals.content, proposals.boxes
        for layer, refine in zip(self.decoder.layers, self.bbox_embed, strict=True):
            place = self.decoder.ref_point_head(box_waves(boxes, x.shape[-1]).to(x.dtype))
            x = layer(x, place, boxes, memory, sizes)
            boxes = (refine(x) + boxes.logit(LOGIT_EPS)).sigmoid()
        return self.predict(self.decoder.norm(x), features.mask_features, classes)

    def propose(self, memory: Tensor, sizes: list, classes: Tensor) -> Proposals:
        """Return the places whose best class scores highest, as queries.

        Args:
            memory: [B, L, D], levels coarse first.
            sizes: height, width of each level.
            classes: [K, P] float unit vectors.
        """
        boxes = proposal_boxes(sizes, memory.device)
        valid = ((boxes > PROPOSAL_MARGIN) & (boxes < 1 - PROPOSAL_MARGIN)).all(dim=-1)
        content = self.enc_output_norm(self.enc_output(memory * valid[:, None]))
        scores = self.class_logits(content, classes).max(dim=-1).values
        count = min(self.num_queries, scores.shape[1])  # a small image has fewer places
        chosen = scores.masked_fill(~valid, -math.inf).topk(count, dim=1).indices
        content = content.take_along_dim(chosen[..., None], dim=1)
        return Proposals(content, (self._bbox_embed(content) + boxes.logit()[chosen]).sigmoid())

    def predict(self, x: Tensor, mask_features: Tensor, classes: Tensor) -> Prediction:
        """Return what queries [B, Q, D] say."""
        z = self.decoder_norm(x)
        return Prediction(
            self.class_logits(z, classes), mask_logits(self.mask_embed(z), mask_features)
        )

    def class_logits(self, z: Tensor, classes: Tensor) -> Tensor:
        """Return [B, Q, K]: scores of z [B, Q, D]."""
        return class_logits(z @ self.class_embed, classes, self.lang_encoder.logit_scale)


def proposal_boxes(sizes: list[tuple[int, int]], device: torch.device) -> Tensor:
    """Return [L, 4] x, y, width, height, 0 .. 1: a square box around each position.

    Args:
        sizes: height, width of each level, coarse first: the first level's boxes are the smallest,
            as upstream has it.
        device: where to make them.
    """
    boxes = []
    for level, size in enumerate(sizes):
        centers = pixel_centers(*size, device)
        boxes.append(
            torch.cat((centers, torch.full_like(centers, SMALLEST_PROPOSAL * 2**level)), 1)
        )
    return torch.cat(boxes)


def box_waves(boxes: Tensor, dim: int) -> Tensor:
    """Return [B, Q, 2 * dim]: sine waves of y, x, width, height of boxes [B, Q, 4]."""
    y_first = boxes[..., [1, 0, 2, 3]]
    return sine_waves(y_first * 2 * math.pi, dim // 2).flatten(-2)

"""The text encoder: sentences to unit vectors, and class names to one vector each.

In: token ids. Out: the vectors that queries are compared with. Attention is causal, so nothing
after a sentence's end token matters: batches are cut there, which saves nine tenths of the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.xdecoder.attention import Attention
from pipeline.xdecoder.class_names import prompts
from pipeline.xdecoder.tokenizer import Tokenizer

NORM_EPS = 1e-12  # not PyTorch's 1e-5; fact sheet xdecoder.md 5
LENGTH_EPS = 1e-7
SENTENCES_AT_ONCE = 256  # 8 MB a layer at width 512


@dataclass(frozen=True)
class TextShape:
    """Sizes of a text encoder."""

    width: int
    heads: int
    depth: int
    context: int  # most tokens of a sentence
    vocabulary: int
    out: int  # length of a sentence's vector


class TextPerceptron(nn.Module):
    """Two linear layers with the sigmoid approximation of GELU in between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(dim, 4 * dim)
        self.c_proj = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., D] of [..., D]."""
        x = self.c_fc(x)
        return self.c_proj(x * torch.sigmoid(1.702 * x))


class TextBlock(nn.Module):
    """Causal self-attention and a perceptron, norms before."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(dim, heads)
        self.mlp = TextPerceptron(dim)
        self.ln_1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.ln_2 = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, L, D] of [B, L, D]."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, is_causal=True)
        return x + self.mlp(self.ln_2(x))


class TextTransformer(nn.Module):
    """Token and position embeddings, blocks, a last norm."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positional_embedding = nn.Parameter(torch.empty(shape.context, shape.width))
        self.resblocks = nn.ModuleList(
            TextBlock(shape.width, shape.heads) for _ in range(shape.depth)
        )
        self.ln_final = nn.LayerNorm(shape.width, eps=NORM_EPS)

    def forward(self, ids: Tensor) -> Tensor:
        """Return hidden states [B, L, D] of token ids [B, L], L at most the context."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        for block in self.resblocks:
            x = block(x)
        return self.ln_final(x)


class LanguageEncoder(nn.Module):
    """Sentences to unit vectors.

    Source: fact sheet xdecoder.md 5.
    """

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.lang_encoder = TextTransformer(shape)
        self.lang_proj = nn.Parameter(torch.empty(shape.width, shape.out))
        self.logit_scale = nn.Parameter(torch.empty(()))

    @property
    def context(self) -> int:
        """Most tokens of a sentence."""
        return len(self.lang_encoder.positional_embedding)

    def project(self, ids: Tensor) -> Tensor:
        """Return [B, P], not normalized: the projected state at each sentence's first end token.

        Args:
            ids: [B, L] int64; the end token is the largest id and pads the rest.
        """
        ends = ids.argmax(dim=1)
        hidden = self.lang_encoder(ids[:, : int(ends.max()) + 1])
        return hidden[torch.arange(len(ids), device=ids.device), ends] @ self.lang_proj

    def forward(self, ids: Tensor) -> Tensor:
        """Return unit vectors [B, P] of token ids [B, L]."""
        x = self.project(ids)
        return x / (x.norm(dim=-1, keepdim=True) + LENGTH_EPS)


@torch.inference_mode()
def class_vectors(encoder: LanguageEncoder, tokenizer: Tokenizer, names: Sequence[str]) -> Tensor:
    """Return [K, P] float32: per class the mean over all prompt templates, of length one.

    Args:
        encoder: on any device; runs in float32.
        tokenizer: of the vocabulary that the encoder was trained with.
        names: class names as the data set spells them.

    Source: fact sheet xdecoder.md 5, evaluation mode: unit vectors are averaged, then divided by
    the mean's length without an epsilon.
    """
    device = encoder.lang_proj.device
    sentences = [prompt for name in names for prompt in prompts(name)]
    ids = torch.from_numpy(tokenizer.encode(sentences, encoder.context))
    # sentences of like length together, so that each batch can be cut short
    order = ids.argmax(dim=1).argsort(stable=True)
    vectors = torch.empty(len(ids), encoder.lang_proj.shape[1])
    for chosen in order.split(SENTENCES_AT_ONCE):
        vectors[chosen] = encoder(ids[chosen].to(device)).float().cpu()
    means = vectors.unflatten(0, (len(names), -1)).mean(dim=1)
    return F.normalize(means, dim=1, eps=0.0)

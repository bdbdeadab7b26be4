"""A batch with its features: everything a loss may look at, made once for all losses of a step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.batch import Batch


@dataclass(frozen=True)
class Encoded:
    """What the networks made of a batch."""

    batch: Batch
    points: tuple[Tensor, ...]  # per time step [V, D] float, L2-normalized: head Q's output
    teacher_map: Tensor | None  # [I, D', h', w'], frozen; None where no loss reads images
    feature_map: Tensor | None  # [I, D, h', w'], head K's output on it
    generator: torch.Generator  # the only randomness of a loss

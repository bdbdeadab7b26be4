"""The pretraining optimizer and its learning rate over the run.

In: parameters and how far the run is. Out: a torch optimizer, and the rate to set.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from pipeline.errors import check

WARM_UP = 0.2  # part of a one-cycle run spent going up; method.md 5.1, SuperFlow's
START_DIVISOR = 25.0
END_DIVISOR = 100.0  # of the starting rate
ADAM_EPS = 1e-6


@dataclass(frozen=True)
class Optimizer:
    """Defaults are SLidR's: SGD, a cosine to 0 stepped once per epoch (method.md 5.1)."""

    kind: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["cosine", "one_cycle"] = "cosine"
    lr: float = 0.5  # the highest
    lr_scaling: Literal["none", "linear"] = "none"  # linear: lr is that of a batch of base_batch
    base_batch: int = 4  # frames; SLidR's on one GPU
    momentum: float = 0.9  # SGD's; AdamW has betas 0.9 and 0.999
    dampening: float = 0.1  # SGD's
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse a rate that trains nothing."""
        check(0 < self.lr < math.inf, f"optimizer.lr: must be above 0 and finite, got {self.lr}")
        for name in ("momentum", "dampening"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"optimizer.{name}: must be in 0 .. 1, got {value}")
        check(
            0 <= self.weight_decay < math.inf,
            f"optimizer.weight_decay: must be at least 0 and finite, got {self.weight_decay}",
        )
        check(
            self.base_batch >= 1, f"optimizer.base_batch: must be at least 1, got {self.base_batch}"
        )


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: Optimizer
) -> torch.optim.SGD | torch.optim.AdamW:
    """Return the optimizer of one group of parameters."""
    if config.kind == "adamw":
        return torch.optim.AdamW(
            parameters, lr=config.lr, weight_decay=config.weight_decay, eps=ADAM_EPS
        )
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        dampening=config.dampening,
        weight_decay=config.weight_decay,
    )


def scaled_lr(config: Optimizer, batch_size: int) -> float:
    """Return the highest learning rate of a run: lr, or lr * batch_size / base_batch.

    Args:
        config: the rule is `lr_scaling`.
        batch_size: frames of a step, those of all processes together.
    """
    return config.lr * (batch_size / config.base_batch if config.lr_scaling == "linear" else 1)


def rate(config: Optimizer, position: float, epochs: int) -> float:
    """Return the learning rate at a position of the run.

    Args:
        config: the highest rate and the schedule. `cosine` goes to 0 and changes between epochs
            only (SLidR); `one_cycle` changes with every step: half a cosine up from lr / 25 over
            the first 20 %, half a cosine down to lr / 2500.
        position: epochs done, with the part of the present one, 0 <= position <= epochs.
        epochs: of the whole run.

    Source: method.md 5.1 (SLidR; SuperFlow's numbers for one_cycle).
    """
    if config.schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * math.floor(position) / epochs)) / 2
    start, done = config.lr / START_DIVISOR, position / epochs
    if done < WARM_UP:
        return _half_cosine(start, config.lr, done / WARM_UP)
    return _half_cosine(config.lr, start / END_DIVISOR, (done - WARM_UP) / (1 - WARM_UP))


def _half_cosine(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2

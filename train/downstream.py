"""How labels are used downstream, and the steps that every kind of downstream training takes."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import check


@dataclass(frozen=True)
class MeanTeacher:
    """The semi-supervised part; method.md 6.5 states none of it, defaults are LaserMix's."""

    mix_weight: float = 0.0  # of the loss on mixed scans; 0 = labeled scans alone
    consistency_weight: float = 0.0  # of the squared difference from the mean teacher
    decay: float = 0.99  # of the mean teacher's weights, per step
    confidence: float = 0.9  # a pseudo label counts from this probability on
    areas: tuple[int, ...] = (3, 4, 5, 6)  # into how many inclination bands two scans are cut

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        weights = (self.mix_weight, self.consistency_weight)
        check(min(weights) >= 0, f"mean_teacher: weights must be >= 0, got {weights}")
        for name in ("decay", "confidence"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"mean_teacher.{name}: must be in 0 .. 1, got {value}")
        check(
            len(self.areas) > 0 and min(self.areas) >= 2,
            f"mean_teacher.areas: must be numbers of at least 2, got {self.areas}",
        )

    @property
    def is_on(self) -> bool:
        """Whether unlabeled scans are used."""
        return self.mix_weight > 0 or self.consistency_weight > 0


@dataclass(frozen=True)
class Downstream:
    """How the labels are used; defaults are the linear probe of method.md 5.2."""

    freeze: bool = True  # only the last layer trains, the network stays in eval mode
    lr: float = 0.05  # of the trunk; of the last layer where the trunk is frozen
    head_lr: float | None = None  # of the new last layer; None = lr
    epochs: int = 50
    batch_size: int = 16
    momentum: float = 0.9
    dampening: float = 0.1
    weight_decay: float = 1e-4
    bn_momentum: float = 0.02  # of the norms outside the residual blocks
    block_bn_momentum: float = 0.1  # inside them: SLidR's value never gets there (method.md 3.1)
    feature_passes: int | None = None  # frozen: augmented passes kept in memory; None = every epoch
    max_voxels: int | None = None  # frozen: labeled voxels kept per frame and pass; None = all
    calibrate: bool = False  # estimate batch-norm statistics on training scans first
    mean_teacher: MeanTeacher = MeanTeacher()  # train on unlabeled scans too
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that train nothing."""
        for name in ("epochs", "batch_size", "feature_passes", "max_voxels"):
            value = getattr(self, name)
            check(value is None or value >= 1, f"{name}: must be at least 1, got {value}")
        for name in ("lr", "head_lr", "weight_decay"):
            value = getattr(self, name)
            check(
                value is None or 0 <= value < math.inf,
                f"{name}: must be at least 0 and finite, got {value}",
            )
        for name in ("momentum", "dampening", "bn_momentum", "block_bn_momentum"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"{name}: must be in 0 .. 1, got {value}")
        check(
            not (self.freeze and self.mean_teacher.is_on),
            "mean_teacher: must be off where only the last layer trains; use 'make semi'",
        )


def take_step(optimizer: torch.optim.SGD, loss: Tensor) -> float:
    """Take one step down a loss and return its value.

    Raises:
        UserError: the loss is not finite.
    """
    value = loss.item()
    check(math.isfinite(value), f"downstream loss: must be finite, got {value}; lower lr, head_lr")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return value


def make_sgd(groups: list[dict], config: Downstream) -> torch.optim.SGD:
    """Return the optimizer of parameter groups with rates of their own."""
    optimizer = torch.optim.SGD(
        groups,
        momentum=config.momentum,
        dampening=config.dampening,
        weight_decay=config.weight_decay,
    )
    for group in optimizer.param_groups:
        group["first_lr"] = group["lr"]
    return optimizer


def set_cosine(optimizer: torch.optim.SGD, epoch: int, epochs: int) -> None:
    """Set the rates of an epoch: a cosine to 0, stepped once per epoch."""
    for group in optimizer.param_groups:
        group["lr"] = group["first_lr"] * (1 + math.cos(math.pi * epoch / epochs)) / 2


def groups_of(items: Iterator, size: int) -> Iterator[list]:
    """Yield lists of `size` items, the last one may be shorter."""
    while group := list(itertools.islice(items, size)):
        yield group

"""The networks, optimizer and random state of a run: what takes one step, and what is saved.

In: a recipe and the machine. Out: losses of a batch, one step down them, and a dict of everything
that the next step depends on.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UserError, check
from pipeline.files import sha256
from train.batch import Batch, Clouds
from train.checkpoint import load_into
from train.contrast import Term, nothing
from train.encoded import Encoded
from train.losses.table import LOSSES
from train.models.image_teacher import ImageHead, ImageTeacher, make_teacher
from train.models.minkunet import MinkUNet, minkunet
from train.optimizer import make_optimizer, rate, scaled_lr
from train.parallel import ALONE, Team
from train.precision import autocast, check_precision, make_scaler
from train.recipes import Network, Recipe, find_weights


@dataclass(frozen=True)
class Machine:
    """Facts of the machine, no part of a run's config."""

    engine: str
    device: str = "cpu"
    num_workers: int = 0
    save_every: int = 1000  # steps; at the end of each epoch as well
    knn_every: int = 0  # epochs between quick looks; 0 = none

    def __post_init__(self) -> None:
        """Refuse counts that make no sense."""
        for name, least in (("num_workers", 0), ("save_every", 1), ("knn_every", 0)):
            value = getattr(self, name)
            check(
                value >= least,
                f"--{name.removeprefix('num_').replace('_', '-')}: must be at least {least}, "
                f"got {value}",
            )


class NotFinite(UserError):
    """The loss of a batch is NaN or infinite."""


class Forward(nn.Module):
    """One pass of a step, however many clouds it encodes: what DDP counts gradients of."""

    def __init__(self, training: "Training") -> None:
        super().__init__()
        self.network, self.head = training.network, training.head
        self._losses = training.losses

    def forward(self, batch: Batch) -> dict[str, Term]:
        """Return the losses of a batch, unweighted."""
        return self._losses(batch)


class Training:
    """Networks, optimizer and random state of one run."""

    def __init__(self, recipe: Recipe, machine: Machine, team: Team = ALONE) -> None:
        self.recipe, self.machine, self.team = recipe, machine, team
        self.device_type = machine.device.partition(":")[0]
        check_precision(recipe.precision, machine.engine)
        torch.manual_seed(recipe.seed)
        network = make_network(recipe.network, machine.engine).to(machine.device)
        self.network = team.sync_norms(network, machine.device)
        teacher, self.teacher_hash = load_teacher(recipe)
        self.teacher: ImageTeacher = teacher.to(machine.device)
        width = recipe.network.out_channels
        check(
            "cosine" not in recipe.losses.weights or width == self.teacher.dim,
            f"recipe '{recipe.name}': network.out_channels must be the teacher's "
            f"{self.teacher.dim} for the cosine loss, got {width}; set it to that",
        )
        self.head = ImageHead(self.teacher.dim, recipe.network.out_channels).to(machine.device)
        self.model = team.wrap(Forward(self))
        parameters = [*self.network.parameters(), *self.head.parameters()]
        self.optimizer = make_optimizer(parameters, recipe.optimizer)
        self.scaler = make_scaler(recipe.precision, self.device_type)
        self.generator = torch.Generator().manual_seed(recipe.seed + team.rank)

    @property
    def lr(self) -> float:
        """The learning rate of this step."""
        return self.optimizer.param_groups[0]["lr"]

    def start_epoch(self, position: float) -> None:
        """Set the network's mode and the learning rate of a position of the run, in epochs."""
        self.network.train()
        recipe = self.recipe
        scale = scaled_lr(recipe.optimizer, recipe.batch_size) / recipe.optimizer.lr
        for group in self.optimizer.param_groups:
            group["lr"] = scale * rate(recipe.optimizer, position, recipe.epochs)

    def step(self, batch: Batch) -> dict[str, float]:
        """Take one optimization step; return the total loss and the parts that had something.

        Raises:
            NotFinite: the loss of this or another process's batch is not; nothing was changed.
        """
        terms, weights = self.model(batch), self.recipe.losses.weights
        total = sum(weights[name] * term.value for name, term in terms.items())
        is_finite = bool(torch.isfinite(total))
        if self.team.any(not is_finite):
            own = total.item() if not is_finite else "not finite in another process"
            raise NotFinite(
                f"recipe '{self.recipe.name}': the loss must be finite, got {own}; "
                "lower optimizer.lr"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self._averages(total, terms)

    def _averages(self, total: Tensor, terms: dict[str, Term]) -> dict[str, float]:
        """Return the mean over processes of the total, and of each part where it had something."""
        used = [float(term.num_contrasted > 0) for term in terms.values()]
        parts = [u * t.value.item() for u, t in zip(used, terms.values(), strict=True)]
        sums = self.team.sums([total.item(), *parts, *used])
        parts, used = sums[1 : 1 + len(terms)], sums[1 + len(terms) :]
        means = {n: p / u for n, p, u in zip(terms, parts, used, strict=True) if u}
        return {"loss": sums[0] / self.team.size, **means}

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Return the losses of a batch, unweighted."""
        encoded, config = self.encode_batch(batch), self.recipe.losses
        terms = {n: LOSSES.load(n).of_batch(encoded, getattr(config, n)) for n in config.weights}
        if self.team.size > 1:  # DDP waits for a gradient of every parameter, used or not
            maps = () if encoded.feature_map is None else (encoded.feature_map,)
            idle = nothing(*encoded.points, *maps).value + _touch(self.head)
            first = next(iter(terms))
            terms[first] = replace(terms[first], value=terms[first].value + idle)
        return terms

    def encode_batch(self, batch: Batch) -> Encoded:
        """Return the batch with its features; images only where a loss reads them."""
        points = tuple(self.encode(clouds) for clouds in batch.frames)
        if "images" not in self.recipe.losses.reads:
            return Encoded(batch, points, None, None, self.generator)
        with autocast(self.device_type, self.recipe.precision.images):
            teacher_map = self.teacher(batch.images.float() / 255)
            feature_map = self.head(teacher_map)
        return Encoded(batch, points, teacher_map, feature_map, self.generator)

    def encode(self, clouds: Clouds) -> Tensor:
        """Return normalized point features [V, D] float32 of a time step (head Q's output)."""
        return self.encode_cells(clouds.features, clouds.coordinates)

    def encode_cells(self, features: Tensor, coordinates: Tensor) -> Tensor:
        """Return normalized features [V, D] float32 of voxels [V, C] at coordinates [V, 4]."""
        with autocast(self.device_type, self.recipe.precision.points):
            found = self.network(features, coordinates)
        return F.normalize(found.float(), dim=1)

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on; all processes must ask together."""
        return {
            "network": self.network.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generator": self.team.stack(self.generator.get_state()),
        }

    def load(self, content: dict[str, Any], where: str) -> None:
        """Take over what `state` returned.

        Raises:
            UserError: it is another network's.
        """
        modules: dict[str, nn.Module] = {"network": self.network, "head": self.head}
        for name, module in modules.items():
            load_into(module, content[name], f"{where} ({name})")
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content.get("scaler", {}))
        states = content["generator"]
        own = states if states.ndim == 1 else states[self.team.rank]
        self.generator.set_state(own.clone())  # torch reads a view's bytes from the wrong place


def make_network(config: Network, engine: str) -> MinkUNet:
    """Return a recipe's 3D network with fresh weights from torch's generator."""
    return minkunet(
        config.in_channels,
        config.out_channels,
        widths=config.widths,
        depths=config.depths,
        engine=engine,
        bn_momentum=config.bn_momentum,
        block_bn_momentum=config.block_bn_momentum,
    )


def load_teacher(recipe: Recipe) -> tuple[ImageTeacher, str]:
    """Return a recipe's frozen teacher, and a hash of its weights file ('' without one).

    Raises:
        UserError: the recipe leaves the weights to the user, or they are missing or do not fit.
    """
    config = recipe.teacher
    check(
        config.weights != "",
        f"recipe '{recipe.name}': teacher.weights must be a checkpoint file of a {config.kind}, "
        "got none; give --set teacher.weights=FILE ('none' for random weights, a control)",
    )
    if config.weights is None:
        return make_teacher(config), ""
    path = find_weights(config.weights)
    teacher = make_teacher(replace(config, weights=str(path)))
    return teacher, sha256(path.read_bytes())[:16]


def _touch(module: nn.Module) -> Tensor:
    """Return 0 with a zero gradient for every parameter."""
    return sum(0 * parameter.sum() for parameter in module.parameters())

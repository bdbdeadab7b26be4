"""The published runs: one function per run, returning its complete frozen config.

`--set optimizer.lr=0.1` overrides one field; everything else of a run is a fact of the machine
(paths, workers, engine) or of the data (classes, image sizes) and is not in here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import check, unknown_name
from train.augment import Config as Augment
from train.losses.point_to_segment import Config as PointToSegment
from train.losses.superpixel_nce import Config as SuperpixelNce
from train.losses.temporal_nce import Config as TemporalNce
from train.models import image_teacher
from train.models.minkunet import DEPTHS_34, WIDTHS_34
from train.voxelize import VoxelConfig

TINY_TEACHER = "weights/tiny_teacher.safetensors"  # ships with the code, see `find_weights`


@dataclass(frozen=True)
class Network:
    """The 3D network; defaults are MinkUNet34 with the head Q of method.md 2.1."""

    widths: tuple[int, ...] = WIDTHS_34
    depths: tuple[int, ...] = DEPTHS_34
    in_channels: int = 1  # intensity, raw value plus the data set's offset (method.md 3.2)
    out_channels: int = 64  # D of the shared space
    bn_momentum: float = 0.05  # pretraining


@dataclass(frozen=True)
class Losses:
    """L = sum of weight * loss; a weight of 0 leaves the loss out (method.md 2.5)."""

    superpixel_nce: SuperpixelNce = SuperpixelNce()
    temporal_nce: TemporalNce = TemporalNce()
    point_to_segment: PointToSegment = PointToSegment()
    superpixel_weight: float = 1.0
    temporal_weight: float = 1.0  # NOT STATED in the paper; ours
    segment_weight: float = 1.0  # NOT STATED in the paper; ours

    def __post_init__(self) -> None:
        """Refuse a run without any loss."""
        weights = (self.superpixel_weight, self.temporal_weight, self.segment_weight)
        check(
            min(weights) >= 0 and max(weights) > 0,
            f"losses: weights must be >= 0 and one above 0, got {weights}",
        )


@dataclass(frozen=True)
class Optimizer:
    """SGD with a cosine to 0 over the epochs, stepped once per epoch (method.md 5.1)."""

    lr: float = 0.5
    momentum: float = 0.9
    dampening: float = 0.1
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class Recipe:
    """A complete pretraining run."""

    name: str
    network: Network = field(default_factory=Network)
    voxels: VoxelConfig = field(default_factory=VoxelConfig)
    teacher: image_teacher.Config = image_teacher.Config(weights="")  # '' = must be given
    losses: Losses = field(default_factory=Losses)
    augment: Augment = Augment()
    optimizer: Optimizer = field(default_factory=Optimizer)
    epochs: int = 50
    batch_size: int = 4  # frames (with their successors); SLidR's on one GPU
    split: str = ""  # '' = the data set's own pretraining split (slidr_train on nuScenes)
    shuffle_pairs: bool = False  # control: each pixel is paired with a random point of its cloud
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a run that would train nothing."""
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            check(value >= 1, f"{name}: must be at least 1, got {value}")


def seal() -> Recipe:
    """Seal: superpixel contrast, temporal consistency and point-to-segment regularization."""
    return Recipe("seal")


def slidr() -> Recipe:
    """SLidR: superpixel contrast alone (SLIC superpixels are the data's business, VFM=slic)."""
    return Recipe("slidr", losses=Losses(temporal_weight=0.0, segment_weight=0.0))


def seal_small() -> Recipe:
    """Seal for the synthetic city on two cores: narrow, shallow network and the tiny teacher."""
    return _small("seal_small", Losses())


def slidr_small() -> Recipe:
    """SLidR for the synthetic city on two cores."""
    return _small("slidr_small", Losses(temporal_weight=0.0, segment_weight=0.0))


def _small(name: str, losses: Losses) -> Recipe:
    return Recipe(
        name,
        network=Network(widths=(16, 16, 32, 48, 64, 64, 48, 32, 32), depths=(1,) * 8),
        voxels=VoxelConfig(kind="cartesian", size_m=0.2),
        teacher=image_teacher.Config("tiny", weights=TINY_TEACHER),
        losses=losses,
        augment=Augment(height=112, width=208, min_pairs=64),
        optimizer=Optimizer(lr=0.2),
        epochs=10,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "seal": seal,
    "slidr": slidr,
    "seal_small": seal_small,
    "slidr_small": slidr_small,
}


def load_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        UserError: unknown name (lists the valid ones).
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]()


def find_weights(name: str) -> Path:
    """Return the file that a recipe names: from the working folder, else beside the code.

    Args:
        name: absolute, or relative to either; recipes hold no absolute path, so that a run's
            config stays the same where the repository moves.
    """
    beside_code = Path(__file__).resolve().parents[1] / name
    return beside_code if beside_code.exists() and not Path(name).exists() else Path(name)

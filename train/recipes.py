"""The published runs: one function per run, returning its complete frozen config.

`--set optimizer.lr=0.1` overrides one field; everything else of a run is a fact of the machine
(paths, workers, engine) or of the data (classes, image sizes) and is not in here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.errors import check, unknown_name
from train.augment import Config as Augment
from train.losses.cosine import Config as Cosine
from train.losses.point_to_segment import Config as PointToSegment
from train.losses.ppkt import Config as Ppkt
from train.losses.st_slidr import Config as StSlidr
from train.losses.superpixel_nce import Config as SuperpixelNce
from train.losses.table import LOSSES
from train.losses.temporal_nce import Config as TemporalNce
from train.models import image_teacher
from train.models.minkunet import DEPTHS_34, WIDTHS_34
from train.optimizer import Optimizer
from train.precision import Precision
from train.voxelize import VoxelConfig

TINY_TEACHER = "weights/tiny_teacher.safetensors"  # ships with the code, see `find_weights`


@dataclass(frozen=True)
class Network:
    """The 3D network; defaults are MinkUNet34 with the head Q of method.md 2.1."""

    widths: tuple[int, ...] = WIDTHS_34
    depths: tuple[int, ...] = DEPTHS_34
    in_channels: int = 1  # intensity, raw value plus the data set's offset (method.md 3.2)
    out_channels: int = 64  # D of the shared space
    bn_momentum: float = 0.05  # pretraining; of the norms outside the residual blocks
    block_bn_momentum: float = 0.1  # inside them: SLidR's value never gets there (method.md 3.1)

    def __post_init__(self) -> None:
        """Refuse a network that cannot be fed or has no outputs."""
        check(
            self.in_channels == 1,
            f"network: in_channels must be 1 (intensity), got {self.in_channels}",
        )
        check(
            self.out_channels >= 1,
            f"network: out_channels must be at least 1, got {self.out_channels}",
        )
        for name in ("bn_momentum", "block_bn_momentum"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"network: {name} must be in 0 .. 1, got {value}")


# the field with a loss's weight; a file of its own per loss, see train/losses/table.py
WEIGHTS = {
    "superpixel_nce": "superpixel_weight",
    "temporal_nce": "temporal_weight",
    "point_to_segment": "segment_weight",
    "ppkt": "ppkt_weight",
    "st_slidr": "st_slidr_weight",
    "cosine": "cosine_weight",
}


@dataclass(frozen=True)
class Losses:
    """L = sum of weight * loss; a weight of 0 leaves the loss out (method.md 2.5, 7, 8)."""

    superpixel_nce: SuperpixelNce = SuperpixelNce()
    temporal_nce: TemporalNce = TemporalNce()
    point_to_segment: PointToSegment = PointToSegment()
    ppkt: Ppkt = Ppkt()
    st_slidr: StSlidr = StSlidr()
    cosine: Cosine = Cosine()
    superpixel_weight: float = 0.0
    temporal_weight: float = 0.0
    segment_weight: float = 0.0
    ppkt_weight: float = 0.0
    st_slidr_weight: float = 0.0
    cosine_weight: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a run without any loss."""
        weights = [getattr(self, field) for field in WEIGHTS.values()]
        check(
            all(0 <= weight < math.inf for weight in weights) and max(weights) > 0,
            f"losses: weights must be >= 0 and one above 0, got {weights}",
        )

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the losses that take part, by the loss's name."""
        found = {name: getattr(self, field) for name, field in WEIGHTS.items()}
        return {name: weight for name, weight in found.items() if weight}

    @property
    def reads(self) -> frozenset[str]:
        """What the losses look at beside the points at t, see train/losses/table.py."""
        parts = [LOSSES.load(name).reads(getattr(self, name)) for name in self.weights]
        return frozenset().union(*parts)


SEAL = Losses(superpixel_weight=1.0, temporal_weight=1.0, segment_weight=1.0)  # NOT STATED: all 1
SLIDR = Losses(superpixel_weight=1.0)
PPKT = Losses(ppkt_weight=1.0)
ST_SLIDR = Losses(st_slidr_weight=1.0)
COSINE = Losses(cosine_weight=1.0)


@dataclass(frozen=True)
class Recipe:
    """A complete pretraining run."""

    name: str
    network: Network = field(default_factory=Network)
    voxels: VoxelConfig = field(default_factory=VoxelConfig)
    teacher: image_teacher.Config = image_teacher.Config(weights="")  # '' = must be given
    losses: Losses = Losses(superpixel_weight=1.0)
    augment: Augment = Augment()
    optimizer: Optimizer = field(default_factory=Optimizer)
    epochs: int = 50
    batch_size: int = 4  # frames (with their successors) of a step, all GPUs together; SLidR's
    precision: Precision = Precision()
    dataset_weights: tuple[float, ...] = ()  # samples of each data set; () = as many as frames
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
    return Recipe("seal", losses=SEAL)


def slidr() -> Recipe:
    """SLidR: superpixel contrast alone (SLIC superpixels are the data's business, VFM=slic)."""
    return Recipe("slidr", losses=SLIDR)


def ppkt() -> Recipe:
    """PPKT as SLidR runs it: pairs alone, and a teacher at stride 32 (method.md 7)."""
    teacher = image_teacher.Config("resnet50_stride32", weights="")
    return Recipe("ppkt", teacher=teacher, losses=PPKT)


def st_slidr() -> Recipe:
    """ST-SLidR: SLidR's contrast, look-alikes spared, rare looks weighed up (method.md 7)."""
    return Recipe("st_slidr", losses=ST_SLIDR, optimizer=Optimizer(base_batch=16), batch_size=16)


def seal_dinov2() -> Recipe:
    """Seal with a DINOv2 teacher, AdamW and a one-cycle rate, as its successors rerun it.

    Method.md 5.1, 8: SuperFlow's optimizer, batch (of eight GPUs) and image size, with our crops;
    ViT-S and ViT-L by teacher.kind.
    """
    return Recipe(
        "seal_dinov2",
        teacher=image_teacher.Config("dinov2_vitb14", weights=""),
        losses=SEAL,
        augment=Augment(width=448),
        optimizer=Optimizer("adamw", "one_cycle", lr=0.01, weight_decay=0.01, base_batch=32),
        epochs=100,
        batch_size=32,
    )


def scalr() -> Recipe:
    """ScaLR's distillation on Seal's network: cosine, DINOv2, no superpixels (method.md 8).

    51.9 linear probing on nuScenes with these two networks, Seal 46.6 (LiMA's table). The widths
    of the two feature spaces must agree, so ViT-S takes network.out_channels=384.
    """
    return Recipe(
        "scalr",
        network=Network(out_channels=768),
        teacher=image_teacher.Config("dinov2_vitb14", weights=""),
        losses=COSINE,
        augment=Augment(width=448),
        optimizer=Optimizer("adamw", "one_cycle", lr=2e-3, weight_decay=0.03),
        epochs=25,
    )


def seal_small() -> Recipe:
    """Seal for the synthetic city on two cores: narrow, shallow network and the tiny teacher."""
    return _small("seal_small", SEAL)


def slidr_small() -> Recipe:
    """SLidR for the synthetic city on two cores."""
    return _small("slidr_small", SLIDR)


def ppkt_small() -> Recipe:
    """PPKT for the synthetic city on two cores; its tiny teacher has stride 4."""
    return _small("ppkt_small", PPKT)


def st_slidr_small() -> Recipe:
    """ST-SLidR for the synthetic city on two cores."""
    return _small("st_slidr_small", ST_SLIDR)


def cosine_small() -> Recipe:
    """The cosine loss for the synthetic city on two cores; as wide as the tiny teacher.

    AdamW and one cycle as in `scalr`, but SLidR's weight decay and a rate of its own: probed on the
    `demo` city 0.01 gave 14.9 mIoU, 0.002 14.4, and SGD with 2 12.8.
    """
    optimizer = Optimizer("adamw", "one_cycle", lr=0.01)
    return replace(_small("cosine_small", COSINE, out_channels=128), optimizer=optimizer)


def _small(name: str, losses: Losses, out_channels: int = 64) -> Recipe:
    return Recipe(
        name,
        network=Network((16, 16, 32, 48, 64, 64, 48, 32, 32), (1,) * 8, out_channels=out_channels),
        voxels=VoxelConfig(kind="cartesian", size_m=0.2),
        teacher=image_teacher.Config("tiny", weights=TINY_TEACHER),
        losses=losses,
        augment=Augment(height=112, width=208, min_pairs=64),
        optimizer=Optimizer(lr=0.2),
        epochs=10,
    )


_FUNCTIONS = (seal, slidr, ppkt, st_slidr, seal_dinov2, scalr)
_SMALL = (seal_small, slidr_small, ppkt_small, st_slidr_small, cosine_small)
RECIPES: dict[str, Callable[[], Recipe]] = {f.__name__: f for f in (*_FUNCTIONS, *_SMALL)}


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

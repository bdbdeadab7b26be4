"""A loaded model of the family as a superpixel source: native image in, ids and categories out.

What the three sources share. Their modules hold only what differs: defaults, file names, family.
"""

import itertools
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from pipeline.errors import UserError, check
from pipeline.regions import Segmentation
from pipeline.tensor_files import WEIGHTS, file_hash, read_tensors, torch_device
from pipeline.types import Camera
from pipeline.xdecoder.checkpoint import fitting_model, load_model
from pipeline.xdecoder.class_names import BACKGROUND, CLASSES
from pipeline.xdecoder.family import Family
from pipeline.xdecoder.model import PanopticModel
from pipeline.xdecoder.text_cache import cached_class_vectors
from pipeline.xdecoder.tokenizer import clip_tokenizer, vocabulary_path

MAX_SEGMENTS = 300  # queries of the largest published model of the family
MACHINE_FIELDS = ("checkpoint", "compile", "images_per_batch")  # `identify` stands for the first


@dataclass(frozen=True)
class Published:
    """Where a family's checkpoint is looked for, and where it comes from."""

    variable: str  # environment variable with a path
    files: tuple[str, ...]  # names in weights/, the first that is there
    url: str  # of the first of them


@dataclass(frozen=True)
class Settings:
    """What all three sources can be told; thresholds are each source's own."""

    object_threshold: float
    overlap_threshold: float
    checkpoint: str = ""  # file; empty: the source's variable, else weights/
    ignore_keys: tuple[str, ...] = ()  # patterns of unknown keys that a checkpoint may hold
    short_side_px: int = 0  # 0: native, as Seal; 512: as the models' own demos
    autocast: Literal["none", "float16", "bfloat16"] = "none"  # Seal ran CUDA float16
    compile: bool = False  # torch.compile of backbone and pixel decoder
    images_per_batch: int = 1  # of one frame and one size

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a number that makes no sense.
        """
        for name in ("object_threshold", "overlap_threshold"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be 0 .. 1, got {value}; give such a value")
        if self.short_side_px < 0 or self.images_per_batch < 1:
            raise ValueError(
                "short_side_px must be >= 0 and images_per_batch >= 1, got "
                f"{self.short_side_px} and {self.images_per_batch}; give such values"
            )


@dataclass(frozen=True)
class Segmenter:
    """The loaded source."""

    model: PanopticModel
    classes: torch.Tensor  # [K, P] float32 class vectors
    settings: Settings
    device: torch.device

    def segment(self, image_rgb: np.ndarray, camera: Camera) -> Segmentation:
        """Return the panoptic segments of one image.

        Args:
            image_rgb: [H, W, 3] uint8, native size.
            camera: not needed by this source.

        Returns:
            ids 1..S at native size, 0 = none, and the COCO panoptic class 0..132 per id.
        """
        return self.segment_batch([image_rgb])[0]

    def segment_images(
        self, images_rgb: Sequence[np.ndarray], cameras: Sequence[Camera]
    ) -> list[Segmentation]:
        """Return the segments of several images, as many of one size at once as configured."""
        found: list[Segmentation] = []
        size = self.settings.images_per_batch
        for _, group in itertools.groupby(images_rgb, key=lambda image: image.shape):
            alike = list(group)
            for start in range(0, len(alike), size):
                found += self.segment_batch(alike[start : start + size])
        return found

    @torch.inference_mode()
    def segment_batch(self, images_rgb: Sequence[np.ndarray]) -> list[Segmentation]:
        """Return the segments of images [H, W, 3] uint8 of one size."""
        native = images_rgb[0].shape[:2]
        scaled = [shrink(image, self.settings.short_side_px) for image in images_rgb]
        images = torch.from_numpy(np.stack(scaled)).to(self.device).permute(0, 3, 1, 2).float()
        with self.precision():
            prediction = self.model(images, self.classes)
        found = self.model.panoptic(
            prediction,
            tuple(images.shape[-2:]),
            native,
            self.settings.object_threshold,
            self.settings.overlap_threshold,
        )
        return [Segmentation(each.ids, each.category) for each in found]

    def precision(self) -> AbstractContextManager:
        """Return the context in which the network runs."""
        if self.settings.autocast == "none":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.settings.autocast))


def shrink(image_rgb: np.ndarray, short_side_px: int) -> np.ndarray:
    """Return the image with that short side, aspect kept; 0 leaves it as it is.

    Source: fact sheet xdecoder.md 2: Pillow's bicubic, as the models' own demos; the long side is
    rounded down.
    """
    if not short_side_px:
        return image_rgb
    height, width = image_rgb.shape[:2]
    short = min(height, width)
    size = [side * short_side_px // short for side in (width, height)]
    return np.asarray(Image.fromarray(image_rgb).resize(size, Image.Resampling.BICUBIC))


def load(settings: Settings, device: str, family: Family, published: Published) -> Segmenter:
    """Return the loaded model of a family.

    Raises:
        UserError: no checkpoint, a wrong one, no vocabulary, or no such device.
    """
    where = torch_device(device)
    tokenizer = clip_tokenizer()
    path = find_checkpoint(settings, family, published)
    model = load_model(path, family, ignore_keys=settings.ignore_keys).to(where)
    check_usable(path, model)
    names = (*CLASSES, BACKGROUND) if family.has_background else CLASSES
    classes = cached_class_vectors(model.predictor.lang_encoder, tokenizer, names)
    if settings.compile:
        compile_parts(model)
    return Segmenter(model, classes.to(where), settings, where)


def check_usable(path: Path, model: PanopticModel) -> None:
    """Refuse sizes that the published models do not have.

    Raises:
        UserError: another vocabulary than CLIP's, or more queries than a store has room for.
    """
    vocabulary = model.predictor.lang_encoder.lang_encoder.token_embedding.num_embeddings
    num_tokens = len(clip_tokenizer().ids)
    check(
        vocabulary == num_tokens,
        f"{path}: text encoder must know CLIP's {num_tokens} tokens, got {vocabulary}; "
        "give the published file",
    )
    num_queries = model.predictor.num_queries
    check(
        num_queries <= MAX_SEGMENTS,
        f"{path}: must have at most {MAX_SEGMENTS} queries, got {num_queries}; "
        "give the published file",
    )


def compile_parts(model: PanopticModel) -> None:
    """Compile, on first use, the parts whose shapes depend on nothing but the image's size."""
    model.backbone.compile()
    model.sem_seg_head["pixel_decoder"].compile()


def find_checkpoint(settings: Settings, family: Family, published: Published) -> Path:
    """Return the checkpoint's path: --set checkpoint, else the variable, else weights/.

    Raises:
        UserError: none of them is there.
    """
    given = settings.checkpoint or os.environ.get(published.variable, "")
    if given:
        path = Path(given).expanduser()
        check(
            path.is_file(),
            f"{family.name}: checkpoint must exist, got {path}; "
            f"correct {published.variable} or --set checkpoint=PATH",
        )
        return path
    for name in published.files:
        if (WEIGHTS / name).is_file():
            return WEIGHTS / name
    raise UserError(
        f"{family.name}: checkpoint must be on this machine, got none; download {published.url} "
        f"and set {published.variable}=PATH, or put it into weights/"
    )


def check_checkpoint(settings: Settings, family: Family, published: Published) -> None:
    """Look into the checkpoint before a store is made, which a wrong one's hash would then close.

    Raises:
        UserError: no checkpoint, or a wrong one.
    """
    path = find_checkpoint(settings, family, published)
    state = read_tensors(path)
    check_usable(path, fitting_model(path, state, family, ignore_keys=settings.ignore_keys))


def identify(settings: Settings, family: Family, published: Published) -> dict[str, str]:
    """Return what a store records of the checkpoint instead of its path: a hash of the file.

    Raises:
        UserError: no checkpoint.
    """
    return {"checkpoint_sha256": file_hash(find_checkpoint(settings, family, published))}


def missing(settings: Settings, family: Family, published: Published) -> str | None:
    """Return what keeps the source from running here, or None."""
    try:
        vocabulary_path()
        find_checkpoint(settings, family, published)
    except UserError as error:
        return str(error)
    return None

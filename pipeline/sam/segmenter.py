"""A loaded SAM as a superpixel source: native images in, ids out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.regions import Segmentation, clean
from pipeline.sam.batches import Batches
from pipeline.sam.checkpoint import find_checkpoint, load_network
from pipeline.sam.generate import segment
from pipeline.sam.prompts import crops_of
from pipeline.sam.resize import shrink_image
from pipeline.sam.settings import Settings
from pipeline.sam.shape import SamShape
from pipeline.tensor_files import torch_device
from pipeline.types import Camera

CPU_PROMPTS, GPU_PROMPTS = 2, 128  # on a CPU larger batches leave the cache: docs/benchmarks.md
PUBLISHED_EMBEDDING = 64 * 64 * 256  # floats of an image embedding of ViT-H, -L and -B


@dataclass(frozen=True)
class Segmenter:
    """The loaded source."""

    model: nn.Module  # the package's Sam
    shape: SamShape
    settings: Settings
    device: torch.device
    images: Batches
    prompts: Batches

    def segment(self, image_rgb: np.ndarray, camera: Camera) -> Segmentation:
        """Return the superpixels of one image.

        Args:
            image_rgb: [H, W, 3] uint8, native size.
            camera: not needed by this source.

        Returns:
            ids 1..S at native size by falling area, 0 = no mask.
        """
        return self.segment_images([image_rgb], [camera])[0]

    @torch.inference_mode()
    def segment_images(
        self, images_rgb: Iterable[np.ndarray], cameras: Sequence[Camera]
    ) -> list[Segmentation]:
        """Return the superpixels of several images, encoded together as many as configured.

        Args:
            images_rgb: taken one by one, so that the next may be read while one is computed.
            cameras: not needed by this source.
        """
        found = []
        for group in _groups(images_rgb, self.settings.images_per_batch):
            crops = [crops_of(*image.shape[:2], self.settings) for image in group]
            parts = [
                image[crop.top : crop.bottom, crop.left : crop.right]
                for image, of_image in zip(group, crops, strict=True)
                for crop in of_image
            ]
            embeddings = iter(self.images.run(self.encode, parts))
            for image, of_image in zip(group, crops, strict=True):
                own = [next(embeddings) for _ in of_image]
                ids = segment(self.model, own, of_image, self.settings, self.prompts)
                asked = self.settings
                ids = clean(ids, image, asked.drop_below, asked.fill, asked.split_above)
                found.append(Segmentation(ids))
        return found

    def encode(self, images_rgb: Sequence[np.ndarray]) -> list[Tensor]:
        """Return the embeddings [D, grid, grid] float32 of images of any sizes."""
        size = self.shape.image_size
        batch = []
        for image in images_rgb:
            small = torch.from_numpy(np.array(shrink_image(image, size))).to(self.device)
            pixels = (small.permute(2, 0, 1) - self.model.pixel_mean) / self.model.pixel_std
            height, width = pixels.shape[1:]
            batch.append(F.pad(pixels, (0, size - width, 0, size - height)))
        with self.precision():
            embeddings = self.model.image_encoder(torch.stack(batch))
        return list(embeddings.float())

    def precision(self) -> AbstractContextManager:
        """Return the context in which the image encoder runs; the decoder stays in float32."""
        if self.settings.autocast == "none":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.settings.autocast))


def _groups(items: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    group: list[np.ndarray] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def open_segmenter(
    settings: Settings, device: str, build: Callable[[SamShape], nn.Module]
) -> Segmenter:
    """Return the source with its model on the device.

    Raises:
        UserError: no checkpoint, a wrong or damaged one, or no such device.
    """
    where = torch_device(device)
    path = find_checkpoint(settings)
    model, shape = load_network(path, build)
    model = model.to(where)
    if settings.compile:
        model.image_encoder.compile()
    usual = cpu_prompts(shape) if where.type == "cpu" else GPU_PROMPTS
    say = lambda line: click.echo(f"sam: {line}", err=True)  # noqa: E731
    return Segmenter(
        model,
        shape,
        settings,
        where,
        Batches("images", settings.images_per_batch * (1 + _num_crops(settings)), say),
        Batches("prompts", settings.prompts_per_batch or usual, say),
    )


def cpu_prompts(shape: SamShape) -> int:
    """Return how many prompts go through a decoder together on a CPU.

    As many as fill the cache like CPU_PROMPTS of a published decoder; the tiny one's pass 1.7 times
    faster by 32 than by 2.
    """
    fit = CPU_PROMPTS * PUBLISHED_EMBEDDING // (shape.grid**2 * shape.dim)
    return min(max(fit, CPU_PROMPTS), 32)


def _num_crops(settings: Settings) -> int:
    """Return how many crops an image has beside itself."""
    return sum(4**layer for layer in range(1, settings.crop_layers + 1))

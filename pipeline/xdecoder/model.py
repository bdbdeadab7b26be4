"""One model of the family: images in, scored masks or panoptic maps out.

Attribute names follow the checkpoints: `backbone`, `sem_seg_head.pixel_decoder` and
`sem_seg_head.predictor`, which holds the text encoder.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.xdecoder.family import Family
from pipeline.xdecoder.masked_decoder import Prediction, resize
from pipeline.xdecoder.panoptic import Panoptic, keep_queries, merge

PIXEL_MEAN = (123.675, 116.28, 103.53)  # RGB, 0 .. 255
PIXEL_STD = (58.395, 57.12, 57.375)
SIZE_MULTIPLE = 32  # px, both sides are padded to it


class PanopticModel(nn.Module):
    """Backbone, pixel decoder and decoder of one family."""

    def __init__(
        self, family: Family, backbone: nn.Module, pixel_decoder: nn.Module, predictor: nn.Module
    ) -> None:
        super().__init__()
        self.family = family
        self.backbone = backbone
        self.sem_seg_head = nn.ModuleDict({"pixel_decoder": pixel_decoder, "predictor": predictor})
        self.requires_grad_(False)
        self.eval()

    @property
    def predictor(self) -> nn.Module:
        """The decoder."""
        return self.sem_seg_head["predictor"]

    def forward(self, images: Tensor, classes: Tensor) -> Prediction:
        """Return scored masks.

        Args:
            images: [B, 3, H, W] float RGB, 0 .. 255, any size.
            classes: [K, P] float unit vectors, `text.class_vectors`.
        """
        maps = self.backbone(normalize(images))
        return self.predictor(self.sem_seg_head["pixel_decoder"](maps), classes)

    def panoptic(
        self,
        prediction: Prediction,
        image_size: tuple[int, int],
        output_size: tuple[int, int],
        object_threshold: float,
        overlap_threshold: float,
    ) -> list[Panoptic]:
        """Return the panoptic map of each image of a prediction.

        Args:
            prediction: of `forward`.
            image_size: H, W of the images that went in.
            output_size: H, W of the maps.
            object_threshold: least score of a query.
            overlap_threshold: least share of a mask that other masks leave over.
        """
        found = []
        for logits, masks in zip(prediction.logits.float(), prediction.masks, strict=True):
            kept = keep_queries(logits, object_threshold, self.family.temperature)
            full = full_size(masks[kept.query_idx], image_size, output_size, self.family)
            found.append(merge(kept, full, output_size, overlap_threshold))
        return found


def normalize(images: Tensor) -> Tensor:
    """Return [B, 3, H', W'] float: standardized, then padded with zeros right and below.

    Args:
        images: [B, 3, H, W] float RGB, 0 .. 255.

    Raises:
        ValueError: not three channels.

    Source: fact sheet xdecoder.md 2.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"PanopticModel: images must be [B, 3, H, W], got {list(images.shape)}; "
            "put the color channel second"
        )
    mean, std = (
        torch.tensor(each, device=images.device)[:, None, None] for each in (PIXEL_MEAN, PIXEL_STD)
    )
    height, width = padded_size(tuple(images.shape[-2:]))
    padding = (0, width - images.shape[-1], 0, height - images.shape[-2])
    return F.pad((images - mean) / std, padding)


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width rounded up to multiples of 32."""
    return tuple(-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in size)


def full_size(
    masks: Tensor, image_size: tuple[int, int], output_size: tuple[int, int], family: Family
) -> Iterator[Tensor]:
    """Yield mask logits [H, W] at output size, one per mask of [n, h, w].

    To the padded input's size, cropped to the image, then to the output's size.

    Source: fact sheet xdecoder.md 8.
    """
    height, width = image_size
    for mask in masks.float():
        mask = resize(mask, padded_size(image_size), family.padded_resize)[:height, :width]
        yield resize(mask, output_size, family.output_resize)

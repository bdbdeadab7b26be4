"""The sizes of a SAM network, read from the names and shapes of its parameters.

In: a checkpoint's tensors. Out: what the package's classes must be built with. Only the number of
heads of the mask decoder is not in the weights: every published file has eight.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pipeline.errors import UserError, check

DECODER_HEADS = 8
VARIANTS = {(1280, 32): "vit_h", (1024, 24): "vit_l", (768, 12): "vit_b"}
_BLOCK, _LAYER = r"image_encoder\.blocks\.(\d+)\.", r"mask_decoder\.transformer\.layers\.(\d+)\."
_IOU = r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."


@dataclass(frozen=True)
class SamShape:
    """Everything a SAM is built from."""

    width: int  # of the image encoder's tokens
    depth: int
    heads: int
    mlp_ratio: float
    patch: int  # px
    grid: int  # tokens along a side of the padded square image
    window: int  # tokens along a side of a window
    global_blocks: tuple[int, ...]  # that attend to the whole image
    dim: int  # of image embedding and prompts
    mask_channels: int  # of the network that reads mask prompts, unused here
    masks: int  # proposals per prompt
    decoder_depth: int
    decoder_mlp: int
    iou_depth: int
    iou_width: int

    @property
    def image_size(self) -> int:
        """Pixels along a side of the square that images are padded to."""
        return self.grid * self.patch

    @property
    def variant(self) -> str:
        """The published variant, or 'a ViT of width x depth'."""
        other = f"a ViT of {self.width} x {self.depth}"
        return VARIANTS.get((self.width, self.depth), other)


def read_shape(where: str, state: Mapping[str, Tensor]) -> SamShape:
    """Return the sizes of a SAM from its tensors.

    Args:
        where: the file, for messages.
        state: name -> tensor.

    Raises:
        UserError: tensors that no SAM has, or lacks one that the sizes are read from.
    """
    try:
        patch = state["image_encoder.patch_embed.proj.weight"].shape
        grid = state["image_encoder.pos_embed"].shape[1]
        depth, decoder_depth, iou_depth = (
            1 + max(int(found[1]) for key in state if (found := re.match(pattern, key)))
            for pattern in (_BLOCK, _LAYER, _IOU)
        )
        reaches = [
            (len(state[f"image_encoder.blocks.{i}.attn.rel_pos_h"]) + 1) // 2 for i in range(depth)
        ]
        windows = {reach for reach in reaches if reach != grid}
        head = state["image_encoder.blocks.0.attn.rel_pos_h"].shape[1]
        shape = SamShape(
            width=patch[0],
            depth=depth,
            heads=patch[0] // head,
            mlp_ratio=len(state["image_encoder.blocks.0.mlp.lin1.bias"]) / patch[0],
            patch=patch[-1],
            grid=grid,
            window=windows.pop() if windows else 0,
            global_blocks=tuple(i for i, reach in enumerate(reaches) if reach == grid),
            dim=len(state["image_encoder.neck.0.weight"]),
            mask_channels=len(state["prompt_encoder.mask_downscaling.3.bias"]),
            masks=len(state["mask_decoder.mask_tokens.weight"]) - 1,
            decoder_depth=decoder_depth,
            decoder_mlp=len(state["mask_decoder.transformer.layers.0.mlp.lin1.bias"]),
            iou_depth=iou_depth,
            iou_width=len(state["mask_decoder.iou_prediction_head.layers.0.bias"]),
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else "other shapes"
        raise UserError(
            f"{where}: must be a checkpoint of SAM, got {what}; give sam_vit_h_4b8939.pth, "
            "sam_vit_l_0b3195.pth or sam_vit_b_01ec64.pth"
        ) from error
    check(
        not windows and shape.masks > 0,
        f"{where}: must have windows of one size and masks per prompt, got others; "
        "give the published file",
    )
    return shape

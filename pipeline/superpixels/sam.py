"""SAM superpixels: every mask of Segment Anything, large ones below small ones.

In: a native RGB image. Out: ids 1..S by falling area; pixels of no mask have id 0. Seal's settings
by default: the package's automatic mask generator with all defaults (method.md 1.3). The package
needs torchvision for functions that are not used here, so it gets stand-ins while it is imported.
"""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from torch import nn

from pipeline.sam import checkpoint
from pipeline.sam.segmenter import Segmenter, open_segmenter
from pipeline.sam.settings import Settings
from pipeline.sam.shape import DECODER_HEADS, SamShape

VERSION = 1
MAX_CATEGORIES = 0
MACHINE_FIELDS = checkpoint.MACHINE_FIELDS
Config = Settings
for_dataset, identify, missing = checkpoint.for_dataset, checkpoint.identify, checkpoint.missing

_STAND_INS = {
    "torchvision": (),
    "torchvision.ops": (),
    "torchvision.ops.boxes": ("batched_nms", "box_area"),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("resize", "to_pil_image"),
}


@contextmanager
def stand_ins() -> Iterator[None]:
    """Put modules named like torchvision's in place, and what was there back afterwards.

    Left in sys.modules they would make transformers believe that torchvision is installed.
    """
    before = {name: sys.modules.get(name) for name in _STAND_INS}
    try:
        for name, functions in _STAND_INS.items():
            module = sys.modules[name] = ModuleType(name)
            for function in functions:
                setattr(module, function, functools.partial(_absent, f"{name}.{function}"))
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _absent(name: str, *_: object, **__: object) -> None:
    raise RuntimeError(f"{name}: must not be called, segment_anything was imported without it")


with stand_ins():
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )


def build(shape: SamShape) -> Sam:
    """Return a network of the package's classes, its weights as those classes set them."""
    side = (shape.grid, shape.grid)
    encoder = ImageEncoderViT(
        img_size=shape.image_size,
        patch_size=shape.patch,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        mlp_ratio=shape.mlp_ratio,
        out_chans=shape.dim,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=shape.window,
        global_attn_indexes=shape.global_blocks,
    )
    prompts = PromptEncoder(
        embed_dim=shape.dim,
        image_embedding_size=side,
        input_image_size=(shape.image_size, shape.image_size),
        mask_in_chans=shape.mask_channels,
    )
    transformer = TwoWayTransformer(
        depth=shape.decoder_depth,
        embedding_dim=shape.dim,
        mlp_dim=shape.decoder_mlp,
        num_heads=DECODER_HEADS,
    )
    decoder = MaskDecoder(
        num_multimask_outputs=shape.masks,
        transformer=transformer,
        transformer_dim=shape.dim,
        iou_head_depth=shape.iou_depth,
        iou_head_hidden_dim=shape.iou_width,
    )
    return Sam(encoder, prompts, decoder, list(checkpoint.MEAN), list(checkpoint.STD)).eval()


def load(config: Settings, device: str) -> Segmenter:
    """Return the source with its model in memory.

    Raises:
        UserError: no checkpoint, a wrong or damaged one, or no such device.
    """
    return open_segmenter(config, device, build)

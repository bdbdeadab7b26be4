"""Small SAMs with random weights whose masks are diverse and partly good."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pipeline.sam.decode import draw, rate, share
from pipeline.sam.shape import SamShape
from pipeline.superpixels.sam import build

STEEPNESS = 300.0  # of logits, so that edges are stable


SMALL = SamShape(
    width=32,
    depth=2,
    heads=2,
    mlp_ratio=2.0,
    patch=16,
    grid=16,
    window=7,
    global_blocks=(1,),
    dim=32,
    mask_channels=16,
    masks=3,
    decoder_depth=2,
    decoder_mlp=64,
    iou_depth=3,
    iou_width=32,
)


@torch.no_grad()
def random_sam(shape: SamShape = SMALL, seed: int = 0):
    """Return a network whose masks are blobs of many sizes, half of them rated above 0.88.

    Features vary smoothly over the image by the encoder's positions; the two biases are set so that
    a twelfth of the median mask is above 0 and half of the ratings are above the threshold.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(shape)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn(parameter.shape) / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape))
        waves = torch.randn(1, shape.width, 6, 6)
        waves = F.interpolate(waves, (shape.grid, shape.grid), mode="bicubic")
        model.image_encoder.pos_embed.copy_(3 * waves.permute(0, 2, 3, 1))
        image = 255 * torch.rand(1, 3, shape.image_size, shape.image_size)
        points = torch.rand(32, 2) * shape.image_size
    decoder = model.mask_decoder
    decoder.output_upscaling[3].bias[0] = 5.0  # a channel that is about 5 everywhere
    shared = share(model, model.image_encoder(model.preprocess(image))[0])
    rated = rate(model, shared, points)
    logits = draw(model, rated, torch.arange(len(points)))
    for number, mlp in enumerate(decoder.output_hypernetworks_mlps[1:]):
        level = logits[:, number].flatten(1).quantile(11 / 12, dim=1).median()
        mlp.layers[-1].bias[0] -= level / 5
    for mlp in decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight.mul_(STEEPNESS)
        mlp.layers[-1].bias.mul_(STEEPNESS)
    decoder.iou_prediction_head.layers[-1].bias[1:] += 0.88 - rated.iou.quantile(0.5, dim=0)
    return model.requires_grad_(False)


def save(model, path: Path) -> Path:
    """Write a network's tensors."""
    save_file(model.state_dict(), path)
    return path


def other(**sizes) -> SamShape:
    """Return the small shape with other sizes."""
    return replace(SMALL, **sizes)

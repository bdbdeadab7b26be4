"""Image features at the paired pixels alone, without an upsampled map.

In: a feature map and pixel positions. Out: what bilinear upsampling to the image's size would hold
there, normalized. A batch of 24 images of 224 x 416 holds 2.2 million pixels and some 60,000 pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def read_pixels(
    feature_map: Tensor, image: Tensor, row: Tensor, col: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return the L2-normalized features [M, D] float32 of some pixels.

    Args:
        feature_map: [I, D, h', w'] float.
        image: [M] int64.
        row: [M] int64, in the image the map belongs to.
        col: [M] int64.
        size: h, w of that image.

    Raises:
        ValueError: a pixel lies outside.

    Source: method.md 2.1: bilinear upsampling with align_corners=True; equals
    train.pooling.pixel_features at those pixels.
    """
    num_images, dim, map_height, map_width = feature_map.shape
    for name, values, limit in (
        ("image", image, num_images),
        ("row", row, size[0]),
        ("col", col, size[1]),
    ):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < limit:
            raise ValueError(
                f"read_pixels: {name} must be in 0 .. {limit - 1}, got "
                f"{int(values.min())} .. {int(values.max())}; give pixels of these images"
            )
    cells = feature_map.float().permute(0, 2, 3, 1).reshape(-1, dim)
    top, row_part = _cell(row, size[0], map_height)
    left, col_part = _cell(col, size[1], map_width)
    read = feature_map.new_zeros((len(image), dim), dtype=torch.float32)
    for y, part_y in ((top, 1 - row_part), ((top + 1).clamp(max=map_height - 1), row_part)):
        for x, part_x in ((left, 1 - col_part), ((left + 1).clamp(max=map_width - 1), col_part)):
            at = (image * map_height + y) * map_width + x
            read = read + cells.index_select(0, at) * (part_y * part_x)[:, None]
    return F.normalize(read, dim=1)


def _cell(position: Tensor, length: int, map_length: int) -> tuple[Tensor, Tensor]:
    """Return the lower map cell [M] int64 of pixels, and the part of the next one, 0 .. 1."""
    step = (map_length - 1) / (length - 1) if length > 1 else 0.0
    exact = position.double() * step
    cell = exact.floor().clamp(max=max(map_length - 2, 0)).long()
    return cell, (exact - cell).float()

"""Features to segments: mean feature per segment, of points and of pixels.

In: features of points or an image feature map, and a segment number for each point or pixel. Out:
one mean vector per segment. Sums go through index_add in float32; no one-hot matrix is built.
The mean over pixels never holds a per-pixel feature: see `pool_pixels`.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN_EPS = 1e-6  # added to every mean's denominator, method.md 2.2
_MIN_SQUARED_NORM = 1e-12  # a shorter pixel feature is scaled by 1e6, not by 1 / norm
_AT_ONCE = {"cuda": 32}  # images pooled: launches are what a GPU waits for; a CPU's cache holds one


@dataclass(frozen=True)
class CompactIds:
    """Superpixels of a batch numbered 0 .. num_superpixels - 1, only those with a paired point."""

    pixels: Tensor  # [I, h, w] int64, -1 = none or without a paired point
    pairs: Tensor  # [M] int64, -1 = none
    offsets: Tensor  # [I + 1] int64; image i owns offsets[i] .. offsets[i + 1] - 1
    num_superpixels: int


def segment_mean(features: Tensor, segment: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """Return the mean feature of every segment, not re-normalized.

    Deterministic on the CPU (index_add walks the rows in order); on CUDA its additions are
    atomic unless torch.use_deterministic_algorithms is on.

    Args:
        features: [M, D] float; summed in float32, whatever its type.
        segment: [M] int64 in 0 .. num_segments - 1.
        num_segments: S.

    Returns:
        means [S, D] float32 (zeros for an empty segment) and counts [S] float32.

    Raises:
        ValueError: one segment number per row is not what was given, or one is out of range.

    Source: method.md 2.2 (SLidR, Apache-2.0): sums divided by count + 1e-6.
    """
    if segment.shape != features.shape[:1]:
        raise ValueError(
            f"segment_mean: segment must be [{features.shape[0]}], got {list(segment.shape)}; "
            "give one segment number per feature row"
        )
    _check_range("segment_mean: segment", segment, num_segments)
    sums = features.new_zeros((num_segments, features.shape[1]), dtype=torch.float32)
    sums = sums.index_add(0, segment, features.float())
    counts = torch.bincount(segment, minlength=num_segments).float()
    return sums / (counts[:, None] + MEAN_EPS), counts


def compact_ids(
    ids: Tensor,
    pair_image: Tensor,
    pair_row: Tensor,
    pair_col: Tensor,
    keep_none: bool = False,
) -> CompactIds:
    """Number the superpixels of all images of a batch, image by image, without gaps.

    A superpixel without a paired point gets no number, so both sides of the contrast lose it.

    Args:
        ids: [I, h, w], any integer type (uint16 as stored); 0 = none. Every image has its own ids.
        pair_image: [M] int64, image of each point-pixel pair.
        pair_row: [M] int64, pixel row in that image.
        pair_col: [M] int64, pixel column.
        keep_none: treat id 0 as a superpixel like any other (the literal behavior of SLidR fed
            with masks whose background is 0).

    Raises:
        ValueError: a pair lies outside its image.

    Source: method.md 2.2, 1.3. SLidR adds image number x 150, which mixes up images once an id
    exceeds 149; here the offset comes from the ids themselves, so any uint16 id works.
    """
    ids = ids.long()
    num_images, height, width = ids.shape
    _check_range("compact_ids: pair_image", pair_image, num_images)
    _check_range("compact_ids: pair_row", pair_row, height)
    _check_range("compact_ids: pair_col", pair_col, width)
    ids_per_image = int(ids.max()) + 1 if ids.numel() else 1
    image = torch.arange(num_images, device=ids.device)
    key = ids + image[:, None, None] * ids_per_image  # [I, h, w], unique over the batch
    pair_key = key[pair_image, pair_row, pair_col]
    used = torch.zeros(num_images * ids_per_image, dtype=torch.bool, device=ids.device)
    used[pair_key] = True
    if not keep_none:
        used[image * ids_per_image] = False
    number = torch.where(used, used.cumsum(0) - 1, -1)  # key -> compact id
    per_image = used.view(num_images, ids_per_image).sum(1)
    offsets = F.pad(per_image.cumsum(0), (1, 0))
    return CompactIds(number[key], number[pair_key], offsets, int(offsets[-1]))


def pixel_features(feature_map: Tensor, height: int, width: int) -> Tensor:
    """Return the feature of every pixel: bilinear upsampling, then L2 normalization.

    Args:
        feature_map: [I, D, h', w'] float, output of the image head.
        height: h of the image the map belongs to.
        width: w.

    Returns:
        [I, D, h, w] float32 of unit length along D.

    Source: method.md 2.1 (SLidR): upsampling with align_corners=True.
    """
    size = (height, width)
    upsampled = F.interpolate(feature_map.float(), size, mode="bilinear", align_corners=True)
    return F.normalize(upsampled, dim=1)


def pool_pixels(feature_map: Tensor, superpixels: CompactIds) -> tuple[Tensor, Tensor]:
    """Return the mean over each superpixel's pixels of `pixel_features(feature_map)`.

    Same values and gradients, without the [I, D, h, w] tensors. A pixel's feature is a weighted sum
    of four map cells, so the sum over a superpixel is (weights [S, h' w'] summed over its pixels) @
    (map [h' w', D]); the pixel's length comes from the dot products of neighboring cells. Per pixel
    only a handful of scalars are kept instead of 2 D.

    Args:
        feature_map: [I, D, h', w'] float, output of the image head; taken to float32.
        superpixels: pixels [I, h, w]; -1 takes no part.

    Returns:
        means [S, D] float32 (norm <= 1, not re-normalized) and counts [S] float32, in pixels.

    Raises:
        ValueError: the map has another number of images than the ids.

    Source: method.md 2.1, 2.2 (k_i): every pixel of the superpixel counts, paired or not.
    """
    if feature_map.shape[0] != superpixels.pixels.shape[0]:
        raise ValueError(
            f"pool_pixels: feature_map must hold {superpixels.pixels.shape[0]} images, "
            f"got {feature_map.shape[0]}; give the map of the images whose ids these are"
        )
    bounds, pixels = superpixels.offsets.tolist(), superpixels.pixels
    at_once = _AT_ONCE.get(feature_map.device.type, 1)
    with torch.autocast(feature_map.device.type, enabled=False):
        parts = [
            _sum_normalized(maps, some, bounds[first : first + len(some) + 1])
            for first, maps, some in zip(
                range(0, len(pixels), at_once),
                feature_map.float().split(at_once),
                pixels.split(at_once),
                strict=True,
            )
        ]
        sums, counts = (torch.cat(each) for each in zip(*parts, strict=True))
        return sums / (counts[:, None] + MEAN_EPS), counts


def _sum_normalized(
    feature_gchw: Tensor, pixels: Tensor, bounds: list[int]
) -> tuple[Tensor, Tensor]:
    """Return the sum of normalized upsampled features and the pixels of superpixels: [S, D], [S].

    Args:
        feature_gchw: [G, D, h', w'] float32.
        pixels: [G, h, w] int64 superpixels of the batch; those here are bounds[0] .. bounds[G] - 1.
        bounds: G + 1 numbers, image g owns bounds[g] .. bounds[g + 1] - 1.
    """
    _, _, map_height, map_width = feature_gchw.shape
    _, height, width = pixels.shape
    y0, y_part = _corners(height, map_height, feature_gchw.device)
    x0, x_part = _corners(width, map_width, feature_gchw.device)
    places = torch.nonzero(pixels >= 0, as_tuple=True)
    _, rows, cols = places
    scale = _inverse_lengths(feature_gchw, y0, y_part, x0, x_part)[places]  # [P]
    num, num_cells = bounds[-1] - bounds[0], map_height * map_width
    segment = pixels[places] - bounds[0]
    counts = torch.bincount(segment, minlength=num).float()
    weights = scale.new_zeros(num * num_cells)
    for y, part_y in ((y0, 1 - y_part), ((y0 + 1).clamp(max=map_height - 1), y_part)):
        for x, part_x in ((x0, 1 - x_part), ((x0 + 1).clamp(max=map_width - 1), x_part)):
            cell = segment * num_cells + y[rows] * map_width + x[cols]
            weights = weights.index_add(0, cell, scale * (part_y[rows] * part_x[cols]))
    of_images = weights.view(num, num_cells).split([b - a for a, b in pairwise(bounds)])
    tables = feature_gchw.flatten(2).mT  # [G, h' w', D]
    sums = torch.cat([some @ table for some, table in zip(of_images, tables, strict=True)])
    return sums, counts


def _corners(length: int, map_length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return each pixel's lower map cell [length] int64 and the part of the next one, 0 .. 1."""
    step = (map_length - 1) / (length - 1) if length > 1 else 0.0
    position = torch.arange(length, device=device, dtype=torch.float64) * step
    cell = position.floor().clamp(max=max(map_length - 2, 0)).long()
    return cell, (position - cell).float()


def _inverse_lengths(
    feature_gchw: Tensor, y0: Tensor, y_part: Tensor, x0: Tensor, x_part: Tensor
) -> Tensor:
    """Return 1 / length [G, h, w] of the upsampled features from dot products of map cells."""
    right, below = feature_gchw[..., 1:], feature_gchw[..., 1:, :]
    same = _interpolate_dots(  # [G, h', w]: both rows the same
        feature_gchw.square().sum(1), 2 * (feature_gchw[..., :-1] * right).sum(1), x0, x_part
    )
    diagonal = (feature_gchw[..., :-1, :-1] * below[..., 1:]).sum(1)
    anti_diagonal = (right[..., :-1, :] * below[..., :-1]).sum(1)
    cross = _interpolate_dots(  # [G, h' - 1, w]: a row and the one below
        (feature_gchw[..., :-1, :] * below).sum(1), diagonal + anti_diagonal, x0, x_part
    )
    squared = _interpolate_dots(same.mT, 2 * cross.mT, y0, y_part).mT
    return squared.clamp(min=_MIN_SQUARED_NORM).rsqrt()


def _interpolate_dots(own: Tensor, next_: Tensor, x0: Tensor, part: Tensor) -> Tensor:
    """Return (1-p)^2 own[x0] + p^2 own[x0+1] + p (1-p) next[x0] along the last axis.

    As two small matrix products: their gradient is one too, where indexing would scatter.
    """
    length, out = own.shape[-1], torch.arange(len(x0), device=x0.device)
    to_own = own.new_zeros((length, len(x0)))
    to_own[x0, out] = (1 - part) ** 2
    if length == 1:
        return own @ to_own
    to_own[x0 + 1, out] = part**2
    to_next = own.new_zeros((length - 1, len(x0)))
    to_next[x0, out] = part * (1 - part)
    return own @ to_own + next_ @ to_next


def _check_range(name: str, numbers: Tensor, limit: int) -> None:
    if not numbers.numel():
        return
    low, high = torch.stack(numbers.aminmax()).tolist()  # at once: a GPU is waited for once
    if not 0 <= low <= high < limit:
        raise ValueError(
            f"{name} must be in 0 .. {limit - 1}, got {low} .. {high}; "
            "filter or renumber before pooling"
        )

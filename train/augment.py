"""Joint augmentation of a cloud and its images, with point-pixel pairs that stay true.

In: one frame's points, segments, images, superpixel ids and pairs. Out: the same, augmented. Pairs
refer to points by index, so turning the cloud needs no bookkeeping. Nothing is redrawn without
bound: a crop gets ten tries and falls back to the whole image, and fallbacks are counted.
The order of cameras is not shuffled as SLidR does: no loss depends on it (tested there).
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipeline.errors import check
from pipeline.image import resize_ids
from train.pixels import Box, Image, cut_image

MAX_TRIES = 10
_ENOUGH_PAIRS_FRACTION = 0.75  # method.md 4, step 3


@dataclass(frozen=True)
class Config:
    """Settings of the pretraining augmentation; defaults are SLidR's, method.md 4."""

    height: int = 224  # of the augmented image, pixels
    width: int = 416  # pixels
    min_area: float = 0.3  # smallest crop, fraction of the image's area; the largest is 1
    aspect: tuple[float, float] = (14 / 9, 17 / 9)  # of the crop, width / height, before resizing
    cuboid: float = 0.2  # longest dropped cuboid, fraction of the cloud's extent; 0 = none
    min_pairs: int = 1024  # an image keeps this many pairs; one that has fewer keeps 75 %
    same_turn: bool = False  # t+n turns and flips as t does; NOT STATED, ours is each on its own

    def __post_init__(self) -> None:
        """Refuse images and crops that cannot be made."""
        sizes, (narrow, wide) = (self.height, self.width), self.aspect
        check(min(sizes) >= 1, f"augment: height and width must be at least 1, got {sizes}")
        check(0 < self.min_area <= 1, f"augment.min_area: must be in 0 .. 1, got {self.min_area}")
        check(0 < narrow <= wide, f"augment.aspect: must be two rising numbers, got {self.aspect}")
        check(self.cuboid >= 0, f"augment.cuboid: must be at least 0, got {self.cuboid}")


@dataclass(frozen=True)
class PairedSample:
    """One frame: a cloud, its images (none at t+n), and which pixel sees which point."""

    points: np.ndarray  # [N, 4] float32: x, y, z in m in the LiDAR frame, intensity
    segment: np.ndarray  # [N] uint16 geometric segment, 0 = none
    images: tuple[Image, ...]  # I images [H, W, 3] uint8 RGB; sizes may differ by camera
    ids: tuple[np.ndarray, ...]  # I arrays [H, W] uint16 superpixel, 0 = none
    pair_point: np.ndarray  # [M] int64, row of `points`
    pair_image: np.ndarray  # [M] int64, position in `images`
    pair_row: np.ndarray  # [M] int64, pixel row in that image
    pair_col: np.ndarray  # [M] int64

    def __post_init__(self) -> None:
        """Check that the columns of one table have one length."""
        columns = (self.pair_point, self.pair_image, self.pair_row, self.pair_col)
        if len({len(column) for column in columns}) > 1:
            raise ValueError(
                "PairedSample: pair arrays must have one length, got "
                f"{[len(column) for column in columns]}; pass the four columns of the same pairs"
            )
        if len(self.segment) != len(self.points) or len(self.ids) != len(self.images):
            raise ValueError(
                f"PairedSample: must have a segment per point and ids per image, got "
                f"{len(self.segment)} of {len(self.points)} and {len(self.ids)} of "
                f"{len(self.images)}; give one each"
            )


@dataclass(frozen=True)
class Augmented:
    """An augmented sample, and how often the published rule could not be met."""

    sample: PairedSample
    num_cuboids_refused: int  # 0 or 1: dropping would have left an image too few pairs
    num_whole_images: int  # images that found no crop in ten tries and were only resized


@dataclass(frozen=True)
class _View:
    """One image with its pairs."""

    image: Image
    ids: np.ndarray
    pairs: np.ndarray  # [m] int64, positions in the sample's pair arrays
    row: np.ndarray  # [m] int64
    col: np.ndarray  # [m] int64


def augment_pretrain(sample: PairedSample, config: Config, rng: np.random.Generator) -> Augmented:
    """Return the sample turned, thinned, cropped and flipped, in the published order.

    Args:
        sample: one frame; each frame of a temporal pair is augmented on its own.
        config: sizes and limits.
        rng: the only randomness; every draw depends on it and the sample alone.

    Returns:
        Images and ids all [config.height, config.width]; pairs grouped by image.

    Source: method.md 4, pretraining (SLidR, Apache-2.0).
    """
    sample = replace(sample, points=augment_cloud(sample.points, rng))
    thinned = drop_cuboid(sample, config, rng)
    views, num_whole_images = [], 0
    for view in _views(thinned):
        box = _draw_crop(view, config, rng)
        num_whole_images += box is None
        view = _crop(view, box, config)
        views.append(_flip(view) if rng.random() < 0.5 else view)
    return Augmented(
        _with_views(thinned, views),
        int(thinned is sample and config.cuboid > 0),
        num_whole_images,
    )


def resize_eval(sample: PairedSample, config: Config) -> PairedSample:
    """Return the sample with whole images resized and nothing else changed (validation).

    Args:
        sample: one frame.
        config: height and width of the result.

    Source: method.md 4, validation.
    """
    return _with_views(sample, [_crop(view, None, config) for view in _views(sample)])


def augment_cloud(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the points turned about z and mirrored; all that fine-tuning and probing do.

    Args:
        points: [N, 4] float32, x, y, z in m in the LiDAR frame and intensity.
        rng: draws an angle from U(0, 2 pi), then whether x and whether y flips, each 0.5.

    Returns:
        [N, 4] float32, same order.

    Source: method.md 4, step 1.
    """
    angle_rad = rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    flip_xy = np.where(rng.random(2) < 0.5, -1.0, 1.0)
    x, y = points[:, :2].T.astype(np.float64)
    turned = np.empty((points.shape[1], len(points)), np.float32)  # one axis after the other
    turned[0] = (x * cos - y * sin) * flip_xy[0]
    turned[1] = (x * sin + y * cos) * flip_xy[1]
    turned[2:] = points[:, 2:].T
    return turned.T


def drop_cuboid(sample: PairedSample, config: Config, rng: np.random.Generator) -> PairedSample:
    """Return the sample without the points of one random box, or the sample itself, untouched.

    The box has r ~ U(0, config.cuboid) of the cloud's extent along each axis and is centered on a
    random point. One draw. It is refused where an image with config.min_pairs pairs would fall
    below that number, or one that has fewer from the start would lose more than 25 %.

    Source: method.md 4, step 2. The published rule knows only the absolute number, which would
    refuse every box for a small camera; for images above it, ours is the same.
    """
    if not len(sample.points) or config.cuboid <= 0:
        return sample
    axes = sample.points[:, :3].T  # one by one: reductions over rows of three are slow
    extent = np.array([axis.max() - axis.min() for axis in axes])
    half_size = extent * rng.uniform(0, config.cuboid) / 2
    center = axes[:, rng.integers(len(sample.points))]
    near = [np.abs(a - c) < size for a, c, size in zip(axes, center, half_size, strict=True)]
    keep = ~(near[0] & near[1] & near[2])
    keep_pair = keep[sample.pair_point]
    num_images = len(sample.images)
    before = np.bincount(sample.pair_image, minlength=num_images)
    after = np.bincount(sample.pair_image[keep_pair], minlength=num_images)
    wanted = np.where(before >= config.min_pairs, config.min_pairs, _ENOUGH_PAIRS_FRACTION * before)
    if (after < wanted).any():
        return sample
    new_row = np.cumsum(keep) - 1
    return replace(
        sample,
        points=np.stack([axis[keep] for axis in sample.points.T]).T,
        segment=sample.segment[keep],
        pair_point=new_row[sample.pair_point[keep_pair]],
        pair_image=sample.pair_image[keep_pair],
        pair_row=sample.pair_row[keep_pair],
        pair_col=sample.pair_col[keep_pair],
    )


def _draw_crop(view: _View, config: Config, rng: np.random.Generator) -> Box | None:
    """Return a box that keeps enough pairs, or None where ten draws gave none.

    Area U(min_area, 1), aspect log-uniform. Enough: more than min_pairs or more than 75 % of the
    image's pairs (method.md 4, step 3); the published loop never ends on an image without pairs,
    which takes the first box that fits here.
    """
    image_height, image_width = view.ids.shape
    enough = min(config.min_pairs, _ENOUGH_PAIRS_FRACTION * len(view.row)) if len(view.row) else -1
    for _ in range(MAX_TRIES):
        area = rng.uniform(config.min_area, 1) * image_height * image_width
        aspect = math.exp(rng.uniform(math.log(config.aspect[0]), math.log(config.aspect[1])))
        height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if not (0 < height <= image_height and 0 < width <= image_width):
            continue
        top = int(rng.integers(image_height - height + 1))
        left = int(rng.integers(image_width - width + 1))
        if _inside(view.row - top, view.col - left, height, width).sum() > enough:
            return top, left, height, width
    return None


def _inside(row: np.ndarray, col: np.ndarray, height: int, width: int) -> np.ndarray:
    return (row >= 0) & (row < height) & (col >= 0) & (col < width)


def _crop(view: _View, box: Box | None, config: Config) -> _View:
    """Return the box (None = all) of a view at the configured size; pairs (p - offset) * scale.

    The published formula, rounded, sends a pixel's corner where resizing sends its center: the two
    are at most one output pixel apart, and pairs in the last half pixel fall out.
    """
    top, left, box_height, box_width = box or (0, 0, *view.ids.shape)
    height, width = config.height, config.width
    row, col = view.row - top, view.col - left
    new_row = np.rint(row * (height / box_height)).astype(np.int64)
    new_col = np.rint(col * (width / box_width)).astype(np.int64)
    keep = _inside(row, col, box_height, box_width) & _inside(new_row, new_col, height, width)
    image = cut_image(view.image, (top, left, box_height, box_width), height, width)
    ids = resize_ids(view.ids[top : top + box_height, left : left + box_width], height, width)
    return _View(image, ids, view.pairs[keep], new_row[keep], new_col[keep])


def _flip(view: _View) -> _View:
    """Return the view mirrored left to right: col' = W - 1 - col (method.md 4, step 4)."""
    return replace(
        view,
        image=cv2.flip(view.image, 1),
        ids=cv2.flip(view.ids, 1),
        col=view.image.shape[1] - 1 - view.col,
    )


def _views(sample: PairedSample) -> list[_View]:
    views = []
    for number, (image, ids) in enumerate(zip(sample.images, sample.ids, strict=True)):
        pairs = np.flatnonzero(sample.pair_image == number)
        views.append(_View(image, ids, pairs, sample.pair_row[pairs], sample.pair_col[pairs]))
    return views


def _with_views(sample: PairedSample, views: list[_View]) -> PairedSample:
    """Return the sample with these images and only the pairs that are left in them."""
    none = np.zeros(0, np.int64)  # so that a frame without images works
    pairs = np.concatenate([none, *(view.pairs for view in views)])
    return replace(
        sample,
        images=tuple(view.image for view in views),
        ids=tuple(view.ids for view in views),
        pair_point=sample.pair_point[pairs],
        pair_image=sample.pair_image[pairs],
        pair_row=np.concatenate([none, *(view.row for view in views)]),
        pair_col=np.concatenate([none, *(view.col for view in views)]),
    )

"""Set the weights of the made-up city's teacher from images alone: no label, LiDAR or mask.

In: image files of city seeds that nothing else uses. Out: a safetensors file of TinyNetwork. No
gradient: layer by layer, words are k-means centers and maps keep what two views of an image (crop,
scale, flip, colors) agree on at the same place. Closed form because on two cores it wins: see
weights/README.md for the measured gain over clusters learned by gradient (SwAV).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import check
from pipeline.image import decode_image
from train.models.tiny_network import Surroundings, TinyNetwork, even_contrast
from train.teacher_views import common_places, cut_views, draw_boxes, normalize, recolor

_BATCH = 8  # images at a time


@dataclass(frozen=True)
class Config:
    """Settings of the teacher's training; all are our choices."""

    pairs: int = 600  # pairs of views a map is fitted to
    places: int = 80  # per pair
    view: tuple[int, int] = (112, 208)  # height, width of a view; multiples of 4
    min_side: float = 0.5  # shortest side of a crop, fraction of the image's
    color: float = 1.0  # strength of the color changes
    patches: int = 60_000  # that words are made from
    rounds: int = 12  # of k-means
    threshold: float = 0.25  # a word answers above this many standard deviations; Coates and Ng
    smoothing: float = 0.1  # added to variances before words are whitened, share of their mean
    ridge: float = 1e-3  # the same before directions are compared
    words: tuple[int, int, int] = TinyNetwork.WORDS  # of each depth; other sizes are for tests
    dims: tuple[int, int, int] = TinyNetwork.DIMS  # after each map


@dataclass(frozen=True)
class Agreement:
    """Mean correlation between the two views of what each map puts out, 0 .. 1."""

    patches: float
    textures: float
    kinds: float


@torch.no_grad()
def train_teacher(
    image_paths: Sequence[Path], out_path: Path, seed: int, config: Config | None = None
) -> Agreement:
    """Fit the tiny network and write it.

    Args:
        image_paths: images of one size, all held in memory.
        out_path: .safetensors, overwritten.
        seed: of crops, colors and first centers.
        config: None = the defaults.

    Raises:
        UserError: fewer than eight images.

    Source: words: k-means on whitened patches with a soft threshold (Coates and Ng, Learning
    Feature Representations with K-means, 2012), here with unit centers at three depths. Maps:
    canonical correlation of two views (Hotelling 1936), which is the closed form of losses that
    whiten and align, scaled by the correlation so that what views disagree on counts little.
    """
    config = config or Config()
    check(
        len(image_paths) >= _BATCH,
        f"teacher training: must have at least {_BATCH} images, got {len(image_paths)}; "
        "synthesize a larger city",
    )
    images = torch.stack([torch.from_numpy(decode_image(path)) for path in image_paths])
    images = images.permute(0, 3, 1, 2).contiguous()  # [F, 3, H, W] uint8
    draw = _Draw(images, config, torch.Generator().manual_seed(seed))
    net = TinyNetwork(config.words, config.dims).eval()
    _fit_words(net.patch_words, even_contrast, draw)
    patches = _fit_map(net.patch_map, net.patches, draw)
    _fit_words(net.texture_words, lambda x: net.patch_map(net.patches(x)), draw)
    textures = _fit_map(net.texture_map, net.textures, draw)
    _fit_words(net.kind_words, lambda x: net.texture_map(net.textures(x)), draw)
    kinds = _fit_map(net.kind_map, net.kinds, draw)
    out_path.parent.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), out_path)
    return Agreement(patches, textures, kinds)


@dataclass(frozen=True)
class _View:
    images: Tensor  # [I, 3, h, w] normalized
    places: Tensor  # [I, L, 2] x, y in -1 .. 1, the same surface points as in the other view


@dataclass(frozen=True)
class _Draw:
    images: Tensor  # [F, 3, H, W] uint8
    config: Config
    generator: torch.Generator

    def pairs(self, count: int) -> Iterator[tuple[_View, _View]]:
        """Yield views of `count` images (rounded up to batches), two of each."""
        config, generator = self.config, self.generator
        for _ in range(0, count, _BATCH):
            chosen = torch.randint(len(self.images), (_BATCH,), generator=generator)
            images = self.images[chosen].float() / 255
            boxes = [draw_boxes(_BATCH, config.min_side, generator) for _ in range(2)]
            places = common_places(boxes, config.places, generator)
            views = [cut_views(images, *box, config.view) for box in boxes]
            views = [normalize(recolor(v, config.color, generator)) for v in views]
            yield tuple(_View(v, p) for v, p in zip(views, places, strict=True))


def _fit_words(conv: nn.Conv2d, features: Callable[[Tensor], Tensor], draw: _Draw) -> None:
    """Make the filters whitened k-means centers of the patches that the convolution will see."""
    config, generator = draw.config, draw.generator
    rows, per_batch = [], 2 * _BATCH * config.places
    for pair in draw.pairs(_BATCH * -(-config.patches // per_batch)):
        for view in pair:
            windows = F.unfold(features(view.images), conv.kernel_size, padding=conv.padding)
            chosen = torch.randint(windows.shape[2], (config.places,), generator=generator)
            rows.append(windows[:, :, chosen].transpose(1, 2).flatten(0, 1))
    patches = torch.cat(rows)  # [A, inside * kernel * kernel]
    mean = patches.mean(0)
    whiten = _whitener(_covariance(patches - mean), config.smoothing)
    white = (patches - mean) @ whiten
    centers = cluster(F.normalize(white, dim=1), conv.out_channels, config.rounds, generator)
    weight = centers @ whiten / (white @ centers.T).std()
    conv.weight.copy_(weight.view_as(conv.weight))
    conv.bias.copy_(-weight @ mean - config.threshold)


def cluster(rows: Tensor, count: int, rounds: int, generator: torch.Generator) -> Tensor:
    """Return unit centers [count, D] of unit rows [A, D] (spherical k-means).

    A center that wins no row stays where it was.
    """
    centers = rows[torch.randperm(len(rows), generator=generator)[:count]]
    for _ in range(rounds):
        winner = (rows @ centers.T).argmax(1)
        sums = torch.zeros_like(centers).index_add(0, winner, rows)
        has_rows = torch.bincount(winner, minlength=count)[:, None] > 0
        centers = torch.where(has_rows, F.normalize(sums, dim=1), centers)
    return centers


def _fit_map(target: Surroundings, features: Callable[[Tensor], Tensor], draw: _Draw) -> float:
    """Set the map to what both views have in common; return the mean correlation it keeps."""
    sides = ([], [])
    for pair in draw.pairs(draw.config.pairs):
        for side, view in zip(sides, pair, strict=True):
            scales = target.scales(features(view.images))
            side.append(torch.cat([_at(scale, view.places) for scale in scales], 1))
    weight, bias, correlation = shared_directions(
        torch.cat(sides[0]), torch.cat(sides[1]), target.maps[0].out_channels, draw.config.ridge
    )
    for part, conv in zip(weight.chunk(len(target.maps), 1), target.maps, strict=True):
        conv.weight.copy_(part[:, :, None, None])
    target.maps[0].bias.copy_(bias)
    return correlation.mean().item()


def shared_directions(
    first: Tensor, second: Tensor, count: int, ridge: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the linear map on which two views of the same places agree best.

    Args:
        first: [A, D] features in one view.
        second: [A, D] features of the same places in the other.
        count: outputs.
        ridge: added to every variance, share of their mean.

    Returns:
        weight [count, D] and bias [count] of outputs that are uncorrelated, have mean 0 and their
        correlation as standard deviation; correlation [count], falling, at least 0.
    """
    both = torch.cat([first, second])
    mean, scale = both.mean(0), 1 / (both.std(0) + 1e-4)
    first, second = (first - mean) * scale, (second - mean) * scale
    own = (_covariance(first) + _covariance(second)) / 2
    cross = (first.T @ second / len(first)).double()
    values, vectors = torch.linalg.eigh(own)
    whiten = vectors * (values + ridge * values.mean()).rsqrt()
    values, vectors = torch.linalg.eigh(whiten.T @ ((cross + cross.T) / 2) @ whiten)
    correlation = values.flip(0)[:count].clamp(min=0)
    weight = ((whiten @ vectors.flip(1)[:, :count]) * correlation).T.float() * scale
    return weight, -weight @ mean, correlation.float()


def _whitener(covariance: Tensor, smoothing: float) -> Tensor:
    """Return the symmetric [D, D] float32 matrix that makes the covariance about the identity."""
    values, vectors = torch.linalg.eigh(covariance)
    return ((vectors * (values + smoothing * values.mean()).rsqrt()) @ vectors.T).float()


def _covariance(centered: Tensor) -> Tensor:
    return (centered.T @ centered / len(centered)).double()


def _at(feature_map: Tensor, places: Tensor) -> Tensor:
    """Return the features [I * L, D] at places [I, L, 2]."""
    sampled = F.grid_sample(
        feature_map, places[:, None], padding_mode="border", align_corners=False
    )  # [I, D, 1, L]
    return sampled[:, :, 0].transpose(1, 2).flatten(0, 1)

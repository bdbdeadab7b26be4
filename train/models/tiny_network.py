"""The made-up city's teacher network: visual words at three depths, seen at several scales.

In: normalized images. Out: a feature map at a quarter of the size. It has ordinary convolutions so
that random weights are a fair control; train.teacher_training sets them without labels and without
gradients. Words are counted over ever larger surroundings because in a picture of 112 x 208 pixels
a place is told by what is around it: see weights/README.md for the measured gain.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 4
_WINDOW = 9  # side of the square in which contrast is evened out, pixels
_QUIET = 0.1  # added to its standard deviation, so that sky stays flat; of a normalized image


class Surroundings(nn.Module):
    """A linear map of a place and of the means around it, in squares of 1, 2, 4, .. cells."""

    def __init__(self, inside: int, out: int, num_scales: int) -> None:
        super().__init__()
        # One linear map, cut by scale; only the first part has the bias.
        self.maps = nn.ModuleList(
            nn.Conv2d(inside, out, 1, bias=scale == 0) for scale in range(num_scales)
        )

    def scales(self, x: Tensor) -> list[Tensor]:
        """Return x [I, D, h, w] and its means over squares, each half the size of the last."""
        maps = [x]
        for _ in self.maps[1:]:
            maps.append(F.avg_pool2d(maps[-1], 2, ceil_mode=True))
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Return [I, out, h, w]; projected before enlarging, which is the same and cheaper."""
        first, *rest = [m(s) for m, s in zip(self.maps, self.scales(x), strict=True)]
        for part in rest:
            first = first + F.interpolate(part, first.shape[2:], mode="bilinear")
        return first


class TinyNetwork(nn.Module):
    """Three layers of words with linear maps between them; 0.5 million parameters.

    Each `*_words` is a convolution with ReLU; each `*_map` makes few numbers of many.
    """

    WORDS = (160, 256, 256)  # of each depth
    DIMS = (48, 96, 128)  # after each map
    DIM = DIMS[-1]

    def __init__(
        self, words: tuple[int, int, int] = WORDS, dims: tuple[int, int, int] = DIMS
    ) -> None:
        super().__init__()
        self.patch_words = nn.Conv2d(3, words[0], 6, stride=2, padding=2)
        self.patch_map = Surroundings(words[0] + 6, dims[0], 1)
        self.texture_words = nn.Conv2d(dims[0], words[1], 3, padding=1)
        self.texture_map = Surroundings(dims[0] + words[1], dims[1], 5)
        self.kind_words = nn.Conv2d(dims[1], words[2], 1)
        self.kind_map = Surroundings(dims[1] + words[2], dims[2], 4)

    def patches(self, images: Tensor) -> Tensor:
        """Return [I, 166, h', w']: patch words, mean color and color spread."""
        color = F.avg_pool2d(images, STRIDE)
        spread = (F.avg_pool2d(images.square(), STRIDE) - color.square()).clamp(min=0).sqrt()
        words = F.avg_pool2d(F.relu(self.patch_words(even_contrast(images))), 2)
        return torch.cat([words, color, spread], 1)

    def textures(self, images: Tensor) -> Tensor:
        """Return [I, 304, h', w']: texture words and what they were made from."""
        mapped = self.patch_map(self.patches(images))
        return torch.cat([mapped, F.relu(self.texture_words(mapped))], 1)

    def kinds(self, images: Tensor) -> Tensor:
        """Return [I, 352, h', w']: words for textures in their surroundings, and their source."""
        mapped = self.texture_map(self.textures(images))
        return torch.cat([mapped, F.relu(self.kind_words(mapped))], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return [I, 128, ceil(H / 4), ceil(W / 4)] of normalized images [I, 3, H, W]."""
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        return self.kind_map(self.kinds(padded))


def even_contrast(images: Tensor) -> Tensor:
    """Return the images less the mean, over the spread, of the square around each pixel."""
    centered = images - _square_mean(images)
    spread = _square_mean(centered.square().mean(1, keepdim=True)).sqrt()
    return centered / (spread + _QUIET)


def _square_mean(x: Tensor) -> Tensor:
    half = _WINDOW // 2
    for size, pad in (((_WINDOW, 1), (half, 0)), ((1, _WINDOW), (0, half))):
        x = F.avg_pool2d(x, size, 1, pad, count_include_pad=False)
    return x

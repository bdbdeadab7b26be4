import pytest
import torch
import torch.nn.functional as F

from train.paired_pixels import read_pixels
from train.pooling import pixel_features


def draw(limit, count=50, seed=0):
    return torch.randint(0, limit, (count,), generator=torch.Generator().manual_seed(seed))


def test_by_hand():
    # a 2x2 map over a 3x3 image: the middle pixel is the mean of all four cells
    feature_map = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]]])
    at = torch.tensor([0, 1, 2])
    read = read_pixels(feature_map, 0 * at, at, at, (3, 3))
    expected = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 3.0], [0.0, 1.0]]), dim=1)
    torch.testing.assert_close(read, expected)


@pytest.mark.parametrize(
    ("cells", "size"), [((3, 4), (12, 16)), ((1, 5), (7, 5)), ((2, 2), (1, 9))]
)
def test_equals_the_whole_upsampled_map_in_value_and_gradient(cells, size):
    generator = torch.Generator().manual_seed(1)
    results = []
    image, row, col = draw(3), draw(size[0], seed=1), draw(size[1], seed=2)
    values = torch.randn(3, 6, *cells, generator=generator)
    target = torch.randn(50, 6, generator=generator)
    for read in (
        lambda m: read_pixels(m, image, row, col, size),
        lambda m: pixel_features(m, *size)[image, :, row, col],
    ):
        feature_map = values.clone().requires_grad_()
        found = read(feature_map)
        (found * target).sum().backward()
        results.append((found.detach(), feature_map.grad))
    torch.testing.assert_close(*[r[0] for r in results], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*[r[1] for r in results], atol=1e-4, rtol=1e-4)


def test_a_factor_does_not_matter():
    feature_map = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    image, row, col = 0 * draw(4), draw(8), draw(9)
    read = read_pixels(feature_map, image, row, col, (8, 9))
    torch.testing.assert_close(read, read_pixels(5 * feature_map, image, row, col, (8, 9)))


def test_refuses_pixels_outside():
    with pytest.raises(
        ValueError, match=r"row must be in 0 .. 3, got 4 .. 4; give pixels of these"
    ):
        one = torch.tensor([0])
        read_pixels(torch.zeros(1, 2, 2, 2), one, one + 4, one, (4, 4))

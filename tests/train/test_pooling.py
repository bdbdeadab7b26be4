import pytest
import torch

from train import pooling
from train.pooling import compact_ids, pixel_features, pool_pixels, segment_mean


def twin_segment_mean(features, segment, num_segments):
    """One row at a time, float64."""
    means = []
    for number in range(num_segments):
        rows = [features[i].double() for i in range(len(segment)) if segment[i] == number]
        total = sum(rows, torch.zeros(features.shape[1], dtype=torch.float64))
        means.append(total / (len(rows) + 1e-6))
    return torch.stack(means)


def twin_pool(feature_map, superpixels):
    """All pixels of all images side by side, each normalized after upsampling, then averaged."""
    num_images, height, width = superpixels.pixels.shape
    features = pixel_features(feature_map, height, width).permute(0, 2, 3, 1)
    kept = superpixels.pixels >= 0
    return segment_mean(features[kept], superpixels.pixels[kept], superpixels.num_superpixels)


def random_superpixels(num_images, height, width, num_ids, generator):
    ids = torch.randint(0, num_ids + 1, (num_images, height, width), generator=generator)
    num_pairs = 40
    pairs = [
        torch.randint(0, limit, (num_pairs,), generator=generator)
        for limit in (num_images, height, width)
    ]
    return compact_ids(ids, *pairs)


def test_segment_mean_by_hand():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    means, counts = segment_mean(features, torch.tensor([2, 2, 0]), 3)
    expected = torch.tensor([[10.0, 20.0], [0.0, 0.0], [2.0, 3.0]])
    assert torch.allclose(means, expected, rtol=2e-6)  # the 1e-6 in the denominator
    assert counts.tolist() == [1, 0, 2]


def test_segment_mean_equals_its_slow_twin_in_values_and_gradients():
    torch.manual_seed(0)
    segment = torch.randint(0, 7, (50,))
    weights = torch.randn(7, 5)
    grads, values = [], []
    for function in (lambda *a: segment_mean(*a)[0], twin_segment_mean):
        torch.manual_seed(1)
        features = torch.randn(50, 5, requires_grad=True)
        means = function(features, segment, 7)
        (means * weights).sum().backward()
        values.append(means.detach().float())
        grads.append(features.grad)
    assert torch.allclose(values[0], values[1], atol=1e-6)
    assert torch.allclose(grads[0], grads[1], atol=1e-6)


def test_segment_mean_ignores_row_order_and_sums_half_precision_in_full():
    torch.manual_seed(0)
    features, segment = torch.randn(30, 4), torch.randint(0, 5, (30,))
    order = torch.randperm(30)
    means, _ = segment_mean(features, segment, 5)
    assert torch.allclose(segment_mean(features[order], segment[order], 5)[0], means, atol=1e-6)
    ones = torch.ones(4000, 1, dtype=torch.float16)  # a float16 sum of ones stops at 2048
    assert segment_mean(ones, torch.zeros(4000, dtype=torch.int64), 1)[0].item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("segment", "message"),
    [([0, 1], r"segment must be \[3\], got \[2\]"), ([0, 1, 4], r"in 0 \.\. 3, got 0 \.\. 4")],
)
def test_segment_mean_refuses(segment, message):
    with pytest.raises(ValueError, match=message):
        segment_mean(torch.zeros(3, 2), torch.tensor(segment), 4)


def test_compact_ids_by_hand():
    # 160 and 400 break an offset of 150 per image and an 8-bit id; both images use id 7
    ids = torch.tensor([[[0, 7, 7], [160, 400, 9]], [[7, 7, 0], [2, 2, 2]]], dtype=torch.uint16)
    image, row, col = torch.tensor(
        [[0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 2], [1, 0, 2]]
    ).T
    compact = compact_ids(ids, image, row, col)
    assert compact.pixels.tolist() == [[[-1, 0, 0], [1, 2, -1]], [[4, 4, -1], [3, 3, 3]]]
    assert compact.pairs.tolist() == [0, 1, 2, -1, 4, 3, -1]
    assert compact.offsets.tolist() == [0, 3, 5]
    assert compact.num_superpixels == 5


def test_compact_ids_can_keep_id_0():
    ids = torch.tensor([[[0, 3]], [[0, 3]]])
    pairs = (torch.tensor([0, 1, 1]), torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]))
    compact = compact_ids(ids, *pairs, keep_none=True)
    assert compact.pixels.tolist() == [[[0, -1]], [[1, 2]]]
    assert compact.pairs.tolist() == [0, 1, 2]


def test_compact_ids_refuses_a_pair_outside_its_image():
    one = torch.tensor([1])
    with pytest.raises(ValueError, match=r"pair_col must be in 0 \.\. 2, got 3 \.\. 3"):
        compact_ids(torch.zeros(2, 2, 3), one, one, torch.tensor([3]))


def test_pool_pixels_by_hand():
    # map cells (3, 0) and (0, 4), three pixels: the middle one is (1.5, 2) / 2.5 = (0.6, 0.8)
    feature_map = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]])
    ids = torch.tensor([[[5, 5, 8]]])
    zero = torch.tensor([0, 0])
    means, counts = pool_pixels(feature_map, compact_ids(ids, zero, zero, torch.tensor([0, 2])))
    expected = torch.tensor([[(1 + 0.6) / 2, (0 + 0.8) / 2], [0.0, 1.0]])
    assert torch.allclose(means, expected, atol=2e-6)
    assert counts.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("map_size", "size"),
    [((5, 7), (20, 28)), ((3, 4), (11, 14)), ((1, 4), (4, 16)), ((4, 1), (9, 3)), ((2, 2), (1, 1))],
)
@pytest.mark.parametrize("at_once", [1, 2])
def test_pool_pixels_equals_its_plain_twin_in_values_and_gradients(
    map_size, size, at_once, monkeypatch
):
    monkeypatch.setitem(pooling._AT_ONCE, "cpu", at_once)
    generator = torch.Generator().manual_seed(3)
    superpixels = random_superpixels(3, *size, 6, generator)
    weights = torch.randn(superpixels.num_superpixels, 8, generator=generator)
    start = torch.randn(3, 8, *map_size, generator=generator)
    values, grads = [], []
    for function in (pool_pixels, twin_pool):
        feature_map = start.clone().requires_grad_()
        means, counts = function(feature_map, superpixels)
        (means * weights).sum().backward()
        values.append(means.detach())
        grads.append(feature_map.grad)
    # lengths from dot products of cells: a few float32 roundings more than from the sum itself
    assert torch.allclose(values[0], values[1], atol=1e-5)
    assert torch.allclose(grads[0], grads[1], atol=1e-5)


def test_pool_pixels_does_not_depend_on_the_features_length_per_image():
    generator = torch.Generator().manual_seed(4)
    superpixels = random_superpixels(2, 12, 16, 5, generator)
    feature_map = torch.randn(2, 8, 3, 4, generator=generator)
    means, _ = pool_pixels(feature_map, superpixels)
    scaled, _ = pool_pixels(
        feature_map * torch.tensor([7.0, 0.1])[:, None, None, None], superpixels
    )
    assert torch.allclose(means, scaled, atol=1e-6)
    assert (means.norm(dim=1) <= 1 + 1e-5).all()


def test_pool_pixels_survives_zero_features_and_an_image_without_superpixels():
    ids = torch.zeros(2, 4, 4, dtype=torch.int64)
    ids[1] = 300
    zero = torch.tensor([0])
    feature_map = torch.zeros(2, 3, 1, 1, requires_grad=True)
    means, _ = pool_pixels(feature_map, compact_ids(ids, torch.tensor([1]), zero, zero))
    means.sum().backward()
    assert means.tolist() == [[0, 0, 0]]
    assert torch.isfinite(feature_map.grad).all()


def test_pool_pixels_refuses_another_number_of_images():
    zero = torch.tensor([0])
    with pytest.raises(ValueError, match="feature_map must hold 1 images, got 2"):
        pool_pixels(torch.zeros(2, 3, 1, 1), compact_ids(torch.ones(1, 2, 2), zero, zero, zero))

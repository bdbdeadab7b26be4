import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import UserError
from train.losses.ppkt import Config, loss

ALL = Config(num_pairs=10_000)


def batch(seed=0, num_images=3, num_pairs=60):
    generator = torch.Generator().manual_seed(seed)

    def draw(limit):
        return torch.randint(0, limit, (num_pairs,), generator=generator)

    return {
        "point_features": F.normalize(torch.randn(25, 6, generator=generator), dim=1),
        "feature_map": torch.randn(num_images, 6, 3, 4, generator=generator),
        "size": (12, 16),
        "pair_voxel": draw(25),
        "pair_image": draw(num_images),
        "pair_row": draw(12),
        "pair_col": draw(16),
    }


def term_of(b, config=ALL, seed=0):
    return loss(**b, generator=torch.Generator().manual_seed(seed), config=config)


def twin(b, temperature=0.07):
    """Every pair against every pair, one by one, with the whole upsampled map."""
    upsampled = F.interpolate(b["feature_map"], b["size"], mode="bilinear", align_corners=True)
    pixels = F.normalize(upsampled, dim=1)
    columns = (b[name].tolist() for name in ("pair_voxel", "pair_image", "pair_row", "pair_col"))
    points, keys = [], []
    for voxel, image, row, col in zip(*columns, strict=True):
        points.append(b["point_features"][voxel])
        keys.append(pixels[image, :, row, col])
    total = 0.0
    for i, point in enumerate(points):
        scores = torch.stack([torch.dot(point, key) for key in keys]) / temperature
        total = total + scores.logsumexp(0) - scores[i]
    return total / len(points)


def test_by_hand():
    # pixels of a 1x3 image over the map (1, 0), (0, 1): (1,0), (1,1)/sqrt 2, (0,1). Points (1,0) on
    # the first pixel and (0,1) on the middle one, temperature 0.5
    half = 1 / math.sqrt(2)
    expected = (math.log(1 + math.exp((half - 1) / 0.5)) + math.log(1 + math.exp(-half / 0.5))) / 2
    zero = torch.tensor([0, 0])
    term = loss(
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]]),
        (1, 3),
        torch.tensor([0, 1]),
        zero,
        zero,
        torch.tensor([0, 1]),
        torch.Generator(),
        Config(temperature=0.5),
    )
    assert term.num_contrasted == 2
    assert term.value.item() == pytest.approx(expected, rel=1e-5)
    assert term.value.item() == pytest.approx(0.33008, abs=1e-5)


def test_equals_its_plain_twin_in_value_and_gradients():
    results = []
    for function in (lambda b: term_of(b).value, twin):
        b = batch()
        b["point_features"].requires_grad_()
        b["feature_map"].requires_grad_()
        value = function(b)
        value.backward()
        results.append((value.item(), b["point_features"].grad, b["feature_map"].grad))
    fast, slow = results
    assert fast[0] == pytest.approx(slow[0], rel=1e-5)
    # 1 / 0.07 enlarges float32 rounding
    assert torch.allclose(fast[1], slow[1], atol=1e-5)
    assert torch.allclose(fast[2], slow[2], atol=1e-5)


def test_the_order_of_pairs_and_the_length_of_pixel_features_do_not_matter():
    b = batch()
    expected = term_of(b).value.item()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    for name in ("pair_voxel", "pair_image", "pair_row", "pair_col"):
        b[name] = b[name][order]
    b["feature_map"] = 7 * b["feature_map"]
    assert term_of(b, seed=5).value.item() == pytest.approx(expected, rel=1e-5)


def test_pairs_are_drawn_without_replacement_and_by_the_generator_alone():
    b = batch(num_pairs=40)
    b["pair_voxel"] = torch.arange(40) % 25
    b["point_features"].requires_grad_()
    term = term_of(b, Config(num_pairs=25))
    assert term.num_contrasted == 25
    term.value.backward()
    first = b["point_features"].grad.abs().sum(1) > 0
    assert 12 < int(first.sum()) < 25  # 25 of 40 pairs: not all voxels, and not one voxel often
    assert term_of(b, Config(num_pairs=25)).value.item() == term.value.item()
    assert term_of(b, Config(num_pairs=25), seed=1).value.item() != term.value.item()


def test_no_pairs_is_zero_with_zero_gradients():
    b = batch(num_pairs=0)
    b["point_features"].requires_grad_()
    term = term_of(b)
    term.value.backward()
    assert term.value.item() == 0 and term.num_contrasted == 0
    assert not b["point_features"].grad.any()


def test_stays_in_float32_under_autocast():
    expected = term_of(batch()).value
    with torch.autocast("cpu", torch.bfloat16):
        assert term_of(batch()).value.item() == expected.item()


def test_refuses_pairs_that_do_not_fit():
    b = batch()
    with pytest.raises(ValueError, match=r"pair arrays must have one length, got \[59, 60\]"):
        term_of({**b, "pair_row": b["pair_row"][1:]})
    with pytest.raises(
        ValueError, match=r"col must be in 0 .. 15, got .* 16; give pixels of these"
    ):
        term_of({**b, "pair_col": b["pair_col"] + 1})
    with pytest.raises(UserError, match="ppkt.num_pairs: must be at least 1, got 0"):
        Config(num_pairs=0)

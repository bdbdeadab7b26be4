import math

import pytest
import torch
import torch.nn.functional as F

from tests.train.losses.test_ppkt import batch as ppkt_batch
from train.losses.cosine import loss


def batch(**options):
    b = ppkt_batch(**options)
    b["teacher_map"] = b.pop("feature_map")
    return b


def twin(b):
    upsampled = F.interpolate(b["teacher_map"], b["size"], mode="bilinear", align_corners=True)
    columns = (b[name].tolist() for name in ("pair_voxel", "pair_image", "pair_row", "pair_col"))
    distances = []
    for voxel, image, row, col in zip(*columns, strict=True):
        pixel = upsampled[image, :, row, col]
        cosine = torch.dot(b["point_features"][voxel], pixel) / pixel.norm()
        distances.append((2 - 2 * cosine).sqrt())
    return sum(distances) / len(distances)


def test_by_hand():
    # (1, 0) on its own direction: 0; (0, 1) on (1, 0): sqrt 2; (0, 1) on (-3, 0): sqrt 2
    term = loss(
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        torch.tensor([[[[5.0, -3.0]], [[0.0, 0.0]]]]),
        (1, 2),
        torch.tensor([0, 1, 1]),
        torch.zeros(3).long(),
        torch.zeros(3).long(),
        torch.tensor([0, 0, 1]),
    )
    assert term.num_contrasted == 3
    assert term.value.item() == pytest.approx(2 * math.sqrt(2) / 3, rel=1e-6)


def test_equals_its_plain_twin_in_value_and_gradient():
    results = []
    for function in (lambda b: loss(**b).value, twin):
        b = batch()
        raw = b["point_features"].clone().requires_grad_()
        # the two agree on unit vectors only, so the gradient is taken through the normalization
        value = function({**b, "point_features": F.normalize(raw, dim=1)})
        value.backward()
        results.append((value.item(), raw.grad))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-6)


def test_only_directions_count():
    b = batch()
    expected = loss(**b).value.item()
    assert loss(**{**b, "teacher_map": 9 * b["teacher_map"]}).value.item() == pytest.approx(
        expected
    )
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3))).Q
    b["point_features"] = b["point_features"] @ turn
    b["teacher_map"] = torch.einsum("idhw,de->iehw", b["teacher_map"], turn)
    assert loss(**b).value.item() == pytest.approx(expected, rel=1e-5)


def test_agreement_is_zero_with_finite_gradients():
    b = batch(num_pairs=1)
    pixels = F.interpolate(b["teacher_map"], b["size"], mode="bilinear", align_corners=True)
    image, row, col = (b[name] for name in ("pair_image", "pair_row", "pair_col"))
    b["pair_voxel"] = torch.tensor([0])
    b["point_features"] = F.normalize(pixels[image, :, row, col], dim=1).requires_grad_()
    value = loss(**b).value
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(b["point_features"].grad).all()


def test_no_pairs_is_zero_with_zero_gradients():
    b = batch(num_pairs=0)
    b["point_features"].requires_grad_()
    term = loss(**b)
    term.value.backward()
    assert term.value.item() == 0 and term.num_contrasted == 0
    assert not b["point_features"].grad.any()


def test_refuses_points_of_another_width():
    b = batch()
    with pytest.raises(
        ValueError, match="as wide as the teacher, 6, got 5; set network.out_channe"
    ):
        loss(**{**b, "point_features": b["point_features"][:, :5]})

import math

import pytest
import torch
import torch.nn.functional as F

from train.losses.superpixel_nce import Config, loss


def batch(seed=0, num_images=3, num_pairs=60, max_id=400):
    """A random batch: features, map, ids far above 255, pairs."""
    generator = torch.Generator().manual_seed(seed)

    def draw(limit, *shape):
        return torch.randint(0, limit, shape, generator=generator)

    numbers = torch.tensor([0, 3, 149, 150, 151, 255, 256, max_id])
    return {
        "point_features": F.normalize(torch.randn(25, 6, generator=generator), dim=1),
        "feature_map": torch.randn(num_images, 6, 3, 4, generator=generator),
        "ids": numbers[draw(len(numbers), num_images, 12, 16)].to(torch.uint16),
        "pair_voxel": draw(25, num_pairs),
        "pair_image": draw(num_images, num_pairs),
        "pair_row": draw(12, num_pairs),
        "pair_col": draw(16, num_pairs),
    }


def twin(b, temperature, keep_none=False):
    """Plain loops over images and ids, as the equations read."""
    upsampled = F.interpolate(b["feature_map"], (12, 16), mode="bilinear", align_corners=True)
    pixels = F.normalize(upsampled, dim=1)
    queries, keys = [], []
    ids = b["ids"].long()
    for image in range(len(ids)):
        for number in ids[image].unique().tolist():
            if number == 0 and not keep_none:
                continue
            paired = [
                b["point_features"][v]
                for v, i, r, c in zip(
                    *(b[k].tolist() for k in ("pair_voxel", "pair_image", "pair_row", "pair_col")),
                    strict=True,
                )
                if i == image and ids[i, r, c] == number
            ]
            if not paired:
                continue
            queries.append(sum(paired) / (len(paired) + 1e-6))
            seen = [pixels[image, :, r, c] for r, c in (ids[image] == number).nonzero().tolist()]
            keys.append(sum(seen) / (len(seen) + 1e-6))
    total = 0.0
    for i, query in enumerate(queries):
        scores = torch.stack([torch.dot(query, key) for key in keys]) / temperature
        total = total - (scores[i] - scores.logsumexp(0))
    return total / len(queries), len(queries)


def test_by_hand():
    # one 1x4 image, map (1, 0) left and (0, 1) right: pixels (1,0), (2,1), (1,2), (0,1) normalized.
    # Superpixel 5 = first two, 300 = last two; two pairs in 5, one in 300, one on id 0 that is none
    pixel = 1 / math.sqrt(5)
    key_5 = ((1 + 2 * pixel) / 2, pixel / 2)
    key_300 = (pixel / 2, (1 + 2 * pixel) / 2)
    query_5, query_300 = (0.5, 0.5), (0.0, 1.0)

    def dot(a, b):
        return a[0] * b[0] + a[1] * b[1]

    expected = 0.0
    for query, own, other in ((query_5, key_5, key_300), (query_300, key_300, key_5)):
        expected += math.log(1 + math.exp((dot(query, other) - dot(query, own)) / 0.5)) / 2
    term = loss(
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]]),
        torch.tensor([[[5, 5, 300, 300], [0, 0, 0, 0]]]),
        torch.tensor([0, 1, 1, 0]),
        torch.tensor([0, 0, 0, 0]),
        torch.tensor([0, 0, 0, 1]),
        torch.tensor([0, 1, 3, 2]),
        Config(temperature=0.5),
    )
    assert term.num_contrasted == 2
    assert term.value.item() == pytest.approx(expected, rel=1e-5)
    assert term.value.item() == pytest.approx(0.45220, abs=1e-5)


@pytest.mark.parametrize("keep_none", [False, True])
def test_equals_its_plain_twin_in_value_and_gradients(keep_none):
    results = []
    for function in (
        lambda b: loss(**b, config=Config(keep_none=keep_none)),
        lambda b: twin(b, 0.07, keep_none),
    ):
        b = batch()
        b["point_features"].requires_grad_()
        b["feature_map"].requires_grad_()
        result = function(b)
        value, num = result if isinstance(result, tuple) else (result.value, result.num_contrasted)
        value.backward()
        results.append((value.item(), num, b["point_features"].grad, b["feature_map"].grad))
    fast, slow = results
    assert fast[0] == pytest.approx(slow[0], rel=1e-5)
    assert fast[1] == slow[1]
    # 1 / 0.07 enlarges float32 rounding
    assert torch.allclose(fast[2], slow[2], atol=1e-5)
    assert torch.allclose(fast[3], slow[3], atol=1e-5)


def test_order_of_images_and_pairs_does_not_matter():
    b = batch()
    expected = loss(**b, config=Config()).value.item()
    order = torch.tensor([2, 0, 1])
    pairs = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    b["feature_map"], b["ids"] = b["feature_map"][order], b["ids"].long()[order]
    b["pair_image"] = order.argsort()[b["pair_image"]]
    for name in ("pair_voxel", "pair_image", "pair_row", "pair_col"):
        b[name] = b[name][pairs]
    assert loss(**b, config=Config()).value.item() == pytest.approx(expected, rel=1e-5)


def test_renaming_ids_does_not_matter():
    b = batch()
    expected = loss(**b, config=Config()).value.item()
    ids = b["ids"].long()
    b["ids"] = torch.where(ids > 0, 65_535 - ids, 0)
    assert loss(**b, config=Config()).value.item() == pytest.approx(expected, rel=1e-5)


def test_an_id_above_150_stays_in_its_image():
    # SLidR's offset of 150 would give id 151 of image 0 and id 1 of image 1 the same number
    ids = torch.tensor([[[151, 2]], [[1, 3]]])
    feature_map = torch.randn(2, 4, 1, 2, generator=torch.Generator().manual_seed(0))
    image, col, zero = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), torch.zeros(4).long()
    features = F.normalize(feature_map, dim=1)[image, :, 0, col]
    term = loss(features, feature_map, ids, torch.arange(4), image, zero, col, Config())
    assert term.num_contrasted == 4
    expected = F.cross_entropy(features @ features.T / 0.07, torch.arange(4)).item()
    assert term.value.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("case", ["no pairs", "only id 0"])
def test_nothing_to_contrast_is_zero_with_zero_gradients(case):
    b = batch(num_pairs=0 if case == "no pairs" else 60)
    if case == "only id 0":
        b["ids"] = torch.zeros(3, 12, 16)
    b["point_features"].requires_grad_()
    b["feature_map"].requires_grad_()
    term = loss(**b, config=Config())
    term.value.backward()
    assert term.value.item() == 0 and term.num_contrasted == 0
    assert not b["point_features"].grad.any() and not b["feature_map"].grad.any()


def test_stays_in_float32_under_autocast():
    b = batch()
    expected = loss(**b, config=Config()).value
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(**b, config=Config()).value.item() == expected.item()


def test_refuses_pair_arrays_of_two_lengths():
    b = batch()
    b["pair_voxel"] = b["pair_voxel"][:-1]
    with pytest.raises(ValueError, match=r"pair arrays must have one length, got \[59, 60\]"):
        loss(**b, config=Config())

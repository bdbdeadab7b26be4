import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import UserError
from tests.train.losses.test_superpixel_nce import batch as superpixel_batch
from train.losses import superpixel_nce
from train.losses.st_slidr import Config, anchor_weights, is_negative, loss


def batch(**options):
    b = superpixel_batch(**options)
    generator = torch.Generator().manual_seed(9)
    b["teacher_map"] = torch.randn(b["feature_map"].shape[0], 7, 3, 4, generator=generator)
    return b


def superpixels_of(b):
    """(image, id, paired voxels, pixels) of every superpixel with a pair and a cell of the map."""
    ids = b["ids"].long()
    columns = [b[k].tolist() for k in ("pair_voxel", "pair_image", "pair_row", "pair_col")]
    small = ids[:, ::4, ::4]  # 12 x 16 to 3 x 4 by nearest
    for image in range(len(ids)):
        for number in ids[image].unique().tolist():
            voxels = [
                v
                for v, i, r, c in zip(*columns, strict=True)
                if i == image and ids[i, r, c] == number
            ]
            cells = (small[image] == number).nonzero().tolist()
            if number and voxels and cells:
                yield image, voxels, (ids[image] == number).nonzero().tolist(), cells


def twin(b, config):
    """Loops over anchors and candidates, as the steps of method.md 7 read."""
    upsampled = F.interpolate(b["feature_map"], (12, 16), mode="bilinear", align_corners=True)
    pixels = F.normalize(upsampled, dim=1)
    queries, keys, units = [], [], []
    for image, voxels, inside, cells in superpixels_of(b):
        queries.append(sum(b["point_features"][v] for v in voxels) / (len(voxels) + 1e-6))
        keys.append(sum(pixels[image, :, r, c] for r, c in inside) / (len(inside) + 1e-6))
        mean = sum(b["teacher_map"][image, :, r, c] for r, c in cells)
        units.append(mean / mean.norm())
    count, losses, alike = len(queries), [], []
    for i in range(count):
        similar = [min(max(float(units[i] @ units[j]), 0), 1) for j in range(count)]
        distances = torch.tensor([1 - s for s in similar], dtype=torch.float64)
        limit = torch.quantile(distances, config.spared).item()
        logits = []
        for j in range(count):
            kept = i == j or (distances[j] >= limit and distances[j] > 1e-6)
            logits.append(torch.dot(queries[i], keys[j]) / config.temperature * kept)
        logits = torch.stack(logits)
        losses.append(logits.logsumexp(0) - logits[i])
        alike.append(sum(s for s in similar if s >= config.similar))
    weights = [1.0] * count
    if config.balanced:
        weights = [1 - (a - min(alike)) / (max(alike) - min(alike)) for a in alike]
    total = sum(w * value for w, value in zip(weights, losses, strict=True))
    return total / sum(weights), count


@pytest.mark.parametrize("config", [Config(), Config(spared=0.3), Config(balanced=False)])
def test_equals_its_plain_twin_in_value_and_gradients(config):
    results = []
    for function in (lambda b: loss(**b, config=config), lambda b: twin(b, config)):
        b = batch()
        b["point_features"].requires_grad_()
        b["feature_map"].requires_grad_()
        result = function(b)
        value, num = result if isinstance(result, tuple) else (result.value, result.num_contrasted)
        value.backward()
        results.append((value.item(), num, b["point_features"].grad, b["feature_map"].grad))
    fast, slow = results
    assert fast[1] == slow[1] > 10
    assert fast[0] == pytest.approx(slow[0], rel=1e-4)
    assert torch.allclose(fast[2], slow[2], atol=2e-5)  # 1 / 0.07 enlarges float32 rounding
    assert torch.allclose(fast[3], slow[3], atol=2e-5)


def test_by_hand():
    # three superpixels of one pixel; points and pixels agree: (1,0), (1,0), (0,1). For the teacher
    # the first two are the same thing, the third is at 90 degrees. Temperature 1, no balance.
    # Anchor 0: own 1, the look-alike's logit 1 becomes 0, the third's is 0 anyway: e / (e + 2).
    # Anchor 2: own 1, two negatives at 0: the same
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    at = torch.arange(3)
    arguments = {
        "point_features": features,
        "feature_map": features.T[None, :, None],
        "teacher_map": torch.tensor([[[[2.0, 1.0, 0.0]], [[0.0, 0.0, 3.0]]]]),
        "ids": torch.tensor([[[4, 7, 9]]]),
        "pair_voxel": at,
        "pair_image": 0 * at,
        "pair_row": 0 * at,
        "pair_col": at,
    }
    term = loss(**arguments, config=Config(temperature=1.0, balanced=False))
    assert term.num_contrasted == 3
    assert term.value.item() == pytest.approx(math.log(1 + 2 / math.e), rel=1e-4)
    # SLidR pushes the look-alikes apart: e / (2 e + 1) for both
    slidr = {key: value for key, value in arguments.items() if key != "teacher_map"}
    plain = superpixel_nce.loss(**slidr, config=superpixel_nce.Config(temperature=1.0))
    expected = (2 * math.log(2 + 1 / math.e) + math.log(1 + 2 / math.e)) / 3
    assert plain.value.item() == pytest.approx(expected, rel=1e-4)


def test_which_candidates_stay_by_hand():
    similarity = torch.tensor([[1.0, 0.9, 0.2], [0.9, 1.0, 0.2], [0.2, 0.2, 1.0]])
    # a third of three candidates: the row quantile lies at the second smallest distance times 2/3
    assert is_negative(similarity, 0.0).tolist() == [[1, 1, 1]] * 3
    assert is_negative(similarity, 1.0).tolist() == [[1, 0, 1], [0, 1, 1], [1, 1, 1]]
    assert is_negative(similarity.new_ones(2, 2), 0.0).tolist() == [[1, 0], [0, 1]]


def test_weights_by_hand():
    similarity = torch.tensor([[1.0, 0.8, 0.1], [0.8, 1.0, 0.5], [0.1, 0.5, 1.0]])
    # sums from 0.5 on: 1.8, 2.3, 1.5
    weights = anchor_weights(similarity, Config())
    assert weights.tolist() == pytest.approx([1 - 0.3 / 0.8, 0.0, 1.0], abs=1e-6)
    assert anchor_weights(torch.ones(1, 1), Config()).tolist() == [1.0]


def test_the_order_of_pairs_does_not_matter():
    b = batch()
    expected = loss(**b, config=Config()).value.item()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    for name in ("pair_voxel", "pair_image", "pair_row", "pair_col"):
        b[name] = b[name][order]
    assert loss(**b, config=Config()).value.item() == pytest.approx(expected, rel=1e-5)


def test_nothing_spared_and_no_balance_is_slidr():
    b = batch()
    b["teacher_map"] = torch.eye(12).reshape(1, 12, 3, 4).repeat(3, 1, 1, 1)  # every cell its own
    b["ids"] = torch.arange(12).reshape(3, 4).repeat_interleave(4, 0).repeat_interleave(4, 1) + 1
    b["ids"] = b["ids"].repeat(3, 1, 1)
    b["teacher_map"][1], b["teacher_map"][2] = b["teacher_map"][0].roll(1, 0), 0.5
    keep_first = b["pair_image"] == 0
    for name in ("pair_voxel", "pair_image", "pair_row", "pair_col"):
        b[name] = b[name][keep_first]
    value = loss(**b, config=Config(spared=0.0, balanced=False)).value.item()
    del b["teacher_map"]
    expected = superpixel_nce.loss(**b, config=superpixel_nce.Config()).value.item()
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", ["no pairs", "too small for a cell"])
def test_nothing_to_contrast_is_zero_with_zero_gradients(case):
    b = batch(num_pairs=0 if case == "no pairs" else 60)
    if case != "no pairs":
        b["ids"] = torch.zeros(3, 12, 16)
        b["ids"][:, 1, 1] = 5
        b["pair_row"], b["pair_col"] = 0 * b["pair_row"] + 1, 0 * b["pair_col"] + 1
    b["point_features"].requires_grad_()
    term = loss(**b, config=Config())
    term.value.backward()
    assert term.value.item() == 0 and term.num_contrasted == 0
    assert not b["point_features"].grad.any()


def test_refuses_what_does_not_fit():
    b = batch()
    with pytest.raises(ValueError, match=r"pair arrays must have one length, got \[59, 60\]"):
        loss(**{**b, "pair_col": b["pair_col"][1:]}, config=Config())
    with pytest.raises(UserError, match="st_slidr.spared: must be in 0 .. 1, got 1.5"):
        Config(spared=1.5)

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import UserError
from train.losses.point_to_segment import Config, loss, of_batch


def twin(features, rows, segment, temperature):
    numbers = segment.unique().tolist()
    means = [sum(features[row] for row in rows[segment == k]) for k in numbers]
    means = [m / ((segment == k).sum() + 1e-6) for m, k in zip(means, numbers, strict=True)]
    total = 0.0
    for position, k in enumerate(numbers):
        own_rows = rows[segment == k].tolist()
        for row in own_rows:
            scores = torch.stack([torch.dot(mean, features[row]) for mean in means]) / temperature
            total = total + (scores.logsumexp(0) - scores[position]) / len(own_rows) / len(numbers)
    return total


def test_by_hand():
    # segment 3: (1, 0) and (0, 1), mean (0.5, 0.5); segment 8: (0, 1). Temperature 1.
    # Points: (1,0): own 0.5, other 0; (0,1): own 0.5, other 1; (0,1): own 1, other 0.5
    expected = (
        (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(0.5))) / 2
        + math.log(1 + math.exp(-0.5))
    ) / 2
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.3, 0.3]])
    term = loss(features, torch.tensor([0, 1, 1]), torch.tensor([3, 3, 8]), 9, Config(1.0))
    assert term.num_contrasted == 2
    assert term.value.item() == pytest.approx(expected, rel=1e-5)
    assert term.value.item() == pytest.approx(0.59908, abs=1e-5)


def random_case():
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(30, 5, generator=generator), dim=1)
    rows = torch.randint(0, 30, (70,), generator=generator)
    return features, rows, torch.randint(0, 6, (70,), generator=generator)


def test_equals_its_plain_twin_in_value_and_gradients():
    features, rows, segment = random_case()
    slow_features = features.clone().requires_grad_()
    features.requires_grad_()
    value = loss(features, rows, segment, 6, Config()).value
    slow = twin(slow_features, rows, segment, 0.07)
    value.backward()
    slow.backward()
    assert value.item() == pytest.approx(slow.item(), rel=1e-5)
    # both sides carry gradients; 1 / 0.07 enlarges float32 rounding
    assert torch.allclose(features.grad, slow_features.grad, atol=1e-5)


def test_gaps_in_the_numbers_and_the_order_of_points_do_not_matter():
    features, rows, segment = random_case()
    expected = loss(features, rows, segment, 6, Config()).value.item()
    order = torch.randperm(70, generator=torch.Generator().manual_seed(1))
    new = torch.tensor([40, 2, 9, 0, 33, 7])
    term = loss(features, rows[order], new[segment[order]], 50, Config())
    assert term.num_contrasted == 6
    assert term.value.item() == pytest.approx(expected, rel=1e-5)


def test_a_large_segment_weighs_no_more_than_a_small_one():
    features, _, _ = random_case()
    rows, segment = torch.tensor([0, 1]), torch.tensor([0, 1])
    expected = loss(features, rows, segment, 2, Config()).value.item()
    repeated = loss(
        features,
        rows.repeat_interleave(torch.tensor([99, 1])),
        segment.repeat_interleave(torch.tensor([99, 1])),
        2,
        Config(),
    )
    assert repeated.value.item() == pytest.approx(expected, rel=1e-4)


def test_no_points_is_zero_with_zero_gradients():
    features = torch.randn(4, 3, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    term = loss(features, none, none, 0, Config())
    term.value.backward()
    assert term.value.item() == 0 and term.num_contrasted == 0 and not features.grad.any()


def test_refuses_rows_and_segments_of_two_lengths():
    with pytest.raises(ValueError, match=r"segment must be \[2\] like rows, got \[3\]"):
        loss(torch.zeros(4, 3), torch.zeros(2).long(), torch.zeros(3).long(), 1, Config())


def value_of(**options):
    features, rows, segment = random_case()
    features.requires_grad_()
    value = loss(features, rows, segment, 6, Config(**options)).value
    value.backward()
    return value.item(), features.grad


def test_max_pooling_equals_a_plain_loop():
    features, rows, segment = random_case()
    pooled = torch.stack([features[rows[segment == k]].max(0).values for k in range(6)])
    losses = F.cross_entropy(features[rows] @ pooled.T / 0.07, segment, reduction="none")
    expected = sum(losses[segment == k].mean() for k in range(6)) / 6
    assert value_of(pooling="max")[0] == pytest.approx(expected.item(), rel=1e-5)


def test_cosine_by_hand():
    # segment 3: (1, 0) and (0, 1) at 45 degrees from their mean; segment 8: one point, its own mean
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    rows, segment = torch.tensor([0, 1, 1]), torch.tensor([3, 3, 8])
    value = loss(features, rows, segment, 9, Config(kind="cosine")).value.item()
    assert value == pytest.approx((1 - math.sqrt(0.5)) / 2, rel=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("kind", ["contrast", "cosine"])
def test_the_pooled_feature_learns_unless_stopped(kind, pooling):
    value, grad = value_of(kind=kind, pooling=pooling)
    same, less = value_of(kind=kind, pooling=pooling, stop_gradient=True)
    assert same == value
    # the mean direction is where the sum of cosines is stationary, so only there nothing changes
    assert torch.allclose(grad, less, atol=1e-6) == ((kind, pooling) == ("cosine", "mean"))


def test_both_frames_are_averaged_where_both_have_clusters():
    generator = torch.Generator().manual_seed(0)
    points = [F.normalize(torch.randn(30, 5, generator=generator), dim=1) for _ in range(2)]
    rows, segment = torch.arange(30), torch.arange(30) % 4
    full, empty = (SimpleNamespace(rows=rows[:n], segment=segment[:n]) for n in (30, 0))
    alone = [loss(each, rows, segment, 4, Config()).value.item() for each in points]

    def value(later, **settings):
        batch = SimpleNamespace(frames=[full, later], segment_sample=torch.zeros(4))
        return of_batch(SimpleNamespace(batch=batch, points=points), Config(**settings))

    assert value(full).value.item() == pytest.approx(alone[0])
    both = value(full, both_frames=True)
    assert both.value.item() == pytest.approx(sum(alone) / 2) and both.num_contrasted == 8
    assert value(empty, both_frames=True).value.item() == pytest.approx(alone[0])


def test_superpoints_have_no_second_frame():
    with pytest.raises(UserError, match="segments must be clusters where both_frames is on"):
        Config(both_frames=True, segments="superpoints")

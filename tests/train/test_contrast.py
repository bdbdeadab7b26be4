import math

import pytest
import torch
import torch.nn.functional as F

from train.contrast import info_nce, info_nce_to, nothing


def test_info_nce_by_hand():
    # <q0,k0> = 1, <q0,k1> = 0; <q1,k0> = 0.6, <q1,k1> = 0.8, temperature 0.5
    queries = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(0)))
    second = -math.log(math.exp(1.6) / (math.exp(1.2) + math.exp(1.6)))
    assert info_nce(queries, keys, 0.5).item() == pytest.approx((first + second) / 2, rel=1e-6)
    assert info_nce(queries, keys, 0.5).item() == pytest.approx(0.31997, abs=1e-5)


def test_info_nce_to_by_hand_with_weights():
    anchors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    target = torch.tensor([0, 1, 1])
    softplus = [math.log(1 + math.exp(x)) for x in (-1, 1, -2)]  # two candidates: log(1 + e^diff)
    plain = info_nce_to(anchors, candidates, target, 1.0)
    assert plain.item() == pytest.approx(sum(softplus) / 3, rel=1e-6)
    weight = torch.tensor([1.0, 0.5, 0.5])
    weighted = info_nce_to(anchors, candidates, target, 1.0, weight)
    expected = (softplus[0] + softplus[1] / 2 + softplus[2] / 2) / 2
    assert weighted.item() == pytest.approx(expected, rel=1e-6)


def test_identical_keys_give_log_of_their_number():
    vector = F.normalize(torch.ones(1, 8), dim=1)
    assert info_nce(vector.expand(50, 8), vector.expand(50, 8), 0.07).item() == pytest.approx(
        math.log(50), rel=1e-6
    )


def test_info_nce_equals_a_plain_loop_in_values_and_gradients():
    torch.manual_seed(0)
    start, keys = torch.randn(9, 4), torch.randn(9, 4)
    queries = start.clone().requires_grad_()
    value = info_nce(queries, keys, 0.3)
    value.backward()
    slow_queries = start.double().requires_grad_()
    terms = []
    for i in range(9):
        scores = [torch.dot(slow_queries[i], keys[j].double()) / 0.3 for j in range(9)]
        terms.append(torch.log(sum(s.exp() for s in scores)) - scores[i])
    slow = sum(terms) / 9
    slow.backward()
    assert value.item() == pytest.approx(slow.item(), rel=1e-5)
    assert torch.allclose(queries.grad, slow_queries.grad.float(), atol=1e-5)


def test_permuting_rows_changes_nothing():
    torch.manual_seed(0)
    queries, keys = torch.randn(20, 4), torch.randn(20, 4)
    order = torch.randperm(20)
    expected = info_nce(queries, keys, 0.07).item()
    assert info_nce(queries[order], keys[order], 0.07).item() == pytest.approx(expected, rel=1e-5)


def test_scaling_features_and_temperature_together_changes_nothing():
    torch.manual_seed(0)
    queries, keys = torch.randn(20, 4), torch.randn(20, 4)
    expected = info_nce(queries, keys, 0.2).item()
    assert info_nce(3 * queries, keys, 0.6).item() == pytest.approx(expected, rel=1e-5)


def test_stays_in_float32_under_autocast():
    torch.manual_seed(0)
    queries, keys = (F.normalize(torch.randn(64, 32), dim=1) for _ in range(2))
    expected = info_nce(queries, keys, 0.07)
    with torch.autocast("cpu", torch.bfloat16):
        value = info_nce(queries, keys, 0.07)
    assert value.dtype == torch.float32
    assert value.item() == expected.item()


def test_refuses_unequal_sides_no_anchor_and_no_temperature():
    with pytest.raises(ValueError, match=r"keys must be \[2, 3\] like queries, got \[4, 3\]"):
        info_nce(torch.zeros(2, 3), torch.zeros(4, 3), 0.07)
    with pytest.raises(ValueError, match="at least one anchor, got 0"):
        info_nce(torch.zeros(0, 3), torch.zeros(0, 3), 0.07)
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        info_nce(torch.zeros(2, 3), torch.zeros(2, 3), 0)


def test_nothing_is_zero_and_keeps_the_graph():
    features = torch.full((3, 2), float("inf"), requires_grad=True)
    term = nothing(features, torch.zeros(2, 3, 1, 1, requires_grad=True))
    term.value.backward()
    assert term.value.item() == 0 and term.num_contrasted == 0
    assert features.grad.tolist() == [[0, 0]] * 3


def test_candidates_that_are_not_allowed_leave_the_denominator():
    anchors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    target = torch.tensor([0, 1])
    allowed = torch.tensor([[True, True, False], [True, True, True]])
    value = info_nce_to(anchors, candidates, target, 1.0, allowed=allowed)
    first, second = math.log(1 + math.exp(-1)), math.log(2 + math.exp(-1))
    assert value.item() == pytest.approx((first + second) / 2, rel=1e-6)

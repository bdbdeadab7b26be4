import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from train.segmentation_loss import lovasz_softmax, segmentation_loss


def jaccard_loss(wrong, truth):
    """1 - IoU of a class when the voxels in `wrong` are mistaken (missed or falsely added)."""
    union = truth | wrong
    return 1 - len(truth - wrong) / len(union) if union else 0.0


def slow_lovasz(probabilities, labels):
    """Plain twin, by definition: sum of errors in falling order times what each adds to 1 - IoU."""
    losses = []
    for label in sorted(set(labels)):
        truth = {i for i, other in enumerate(labels) if other == label}
        errors = [
            1 - row[label] if i in truth else row[label] for i, row in enumerate(probabilities)
        ]
        order = sorted(range(len(labels)), key=lambda i: -errors[i])
        value, mistaken = 0.0, set()
        for i in order:
            before = jaccard_loss(mistaken, truth)
            mistaken = mistaken | {i}
            value += errors[i] * (jaccard_loss(mistaken, truth) - before)
        losses.append(value)
    return sum(losses) / len(losses)


def test_two_voxels_by_hand():
    # class 0: errors .4 (voxel 0) and .3 (voxel 1); missing voxel 0 costs all, adding 1 no more
    # class 1: errors .4 (voxel 0, falsely added) and .3: adding costs 1/2, missing the other half
    probabilities = torch.tensor([[0.6, 0.4], [0.3, 0.7]])
    value = lovasz_softmax(probabilities, torch.tensor([0, 1]))
    assert value.item() == pytest.approx((0.4 + (0.5 * 0.4 + 0.5 * 0.3)) / 2)


def test_right_is_0_and_wrong_is_1():
    labels = torch.tensor([0, 1, 1, 2])
    sure = F.one_hot(labels, 4).float()
    assert lovasz_softmax(sure, labels).item() == 0
    assert lovasz_softmax(sure.roll(1, dims=1), labels).item() == 1


def test_classes_that_do_not_occur_take_no_part():
    probabilities = torch.tensor([[0.6, 0.4], [0.3, 0.7]])
    assert lovasz_softmax(probabilities, torch.tensor([0, 0])).item() == pytest.approx(
        0.5 * 0.7 + 0.5 * 0.4
    )


@pytest.mark.parametrize("seed", range(4))
def test_fast_and_slow_agree_in_value_and_gradient(seed):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(25, 5)), requires_grad=True)
    labels = torch.from_numpy(rng.integers(0, 4, 25))
    value = lovasz_softmax(logits.softmax(1), labels)
    slow = slow_lovasz(list(logits.softmax(1)), labels.tolist())
    assert value.item() == pytest.approx(slow.item(), abs=1e-6)  # steps are float32
    [gradient] = torch.autograd.grad(value, logits, retain_graph=True)
    [expected] = torch.autograd.grad(slow, logits)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)


def test_the_order_of_voxels_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 3, generator=generator)
    labels = torch.randint(0, 3, (40,), generator=generator)
    order = torch.randperm(40, generator=generator)
    assert segmentation_loss(logits[order], labels[order]).item() == pytest.approx(
        segmentation_loss(logits, labels).item(), abs=1e-5
    )


def test_ignored_voxels_change_nothing():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    labels = torch.tensor([0, 1])
    more = torch.cat([logits, torch.tensor([[9.0, -9.0]])])
    value = segmentation_loss(more, torch.tensor([0, 1, 255]))
    assert value.item() == segmentation_loss(logits, labels).item()
    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))
    cross_entropy = -(math.log(p) + math.log(q)) / 2
    # the larger error is voxel 1's, 1 - q; for its own class it costs 1, for the other 1/2
    lovasz = ((1 - q) * 0.5 + (1 - p) * 0.5 + (1 - q)) / 2
    assert value.item() == pytest.approx(cross_entropy + lovasz, abs=1e-6)


def test_nothing_labeled_is_0_with_a_gradient():
    logits = torch.ones(3, 2, requires_grad=True)
    value = segmentation_loss(logits, torch.full((3,), 255))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()

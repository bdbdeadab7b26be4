import math

import pytest
import torch

from train.metrics import confusion, scores


def test_confusion_by_hand_skips_the_ignored_label():
    labels = torch.tensor([0, 0, 1, 255, 2, 255, 1])
    predictions = torch.tensor([0, 1, 1, 2, 2, 0, 0])
    assert confusion(labels, predictions, 4).tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]


def test_scores_by_hand_in_both_conventions():
    # class 0: 3 / (4 + 5 - 3) = 50 %, class 1: 6 / (8 + 7 - 6) = 66.7 %, two never occur
    matrix = torch.tensor([[3, 1, 0, 0], [2, 6, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    present = scores(matrix)
    assert present.per_class_iou[:2] == pytest.approx((50, 100 * 6 / 9))
    assert math.isnan(present.per_class_iou[2])
    assert present.miou == pytest.approx((50 + 100 * 6 / 9) / 2)
    assert (present.num_absent, present.convention) == (2, "present")
    slidr = scores(matrix, "slidr")
    assert slidr.per_class_iou[2:] == (100, 100)
    assert slidr.miou == pytest.approx((50 + 100 * 6 / 9 + 200) / 4)


def test_a_class_that_is_only_predicted_counts_as_zero():
    matrix = confusion(torch.tensor([0, 0]), torch.tensor([0, 1]), 3)
    result = scores(matrix)
    assert result.per_class_iou[:2] == (50, 0)
    assert result.miou == 25
    assert result.num_absent == 1


def test_no_labeled_point_at_all():
    matrix = confusion(torch.full((5,), 255), torch.zeros(5, dtype=torch.int64), 2)
    assert math.isnan(scores(matrix).miou)
    assert scores(matrix, "slidr").miou == 100


def test_scans_add_up_and_their_order_does_not_matter():
    torch.manual_seed(0)
    labels, predictions = torch.randint(0, 5, (200,)), torch.randint(0, 5, (200,))
    labels[::7] = 255
    whole = confusion(labels, predictions, 5)
    parts = confusion(labels[120:], predictions[120:], 5) + confusion(
        labels[:120], predictions[:120], 5
    )
    assert torch.equal(whole, parts)
    slow = [[0] * 5 for _ in range(5)]
    for label, prediction in zip(labels.tolist(), predictions.tolist(), strict=True):
        if label != 255:
            slow[label][prediction] += 1
    assert whole.tolist() == slow


def test_a_perfect_prediction_scores_100():
    labels = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)
    result = scores(confusion(labels, torch.tensor([0, 1, 2, 0]), 3))
    assert result.miou == 100 and result.num_absent == 0


def test_refuses_bad_input():
    with pytest.raises(ValueError, match=r"predictions must be \[3\] like labels, got \[2\]"):
        confusion(torch.zeros(3), torch.zeros(2), 2)
    with pytest.raises(ValueError, match=r"labels must be in 0 \.\. 1, got 0 \.\. 7"):
        confusion(torch.tensor([0, 7]), torch.tensor([0, 0]), 2)
    with pytest.raises(ValueError, match=r"predictions must be in 0 \.\. 1, got 0 \.\. 2"):
        confusion(torch.tensor([0, 1]), torch.tensor([0, 2]), 2)
    with pytest.raises(ValueError, match="one of present, slidr, got 'nan'"):
        scores(torch.zeros(2, 2), "nan")

import math

import pytest
import torch

from pipeline.errors import UserError
from train.optimizer import Optimizer, make_optimizer, rate

CYCLE = Optimizer(kind="adamw", schedule="one_cycle", lr=0.5)


def test_cosine_by_hand_changes_between_epochs_only():
    config = Optimizer(lr=0.8)
    assert [rate(config, epoch, 4) for epoch in range(4)] == pytest.approx(
        [0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5))]
    )
    assert rate(config, 2.999, 4) == rate(config, 2, 4)


def test_one_cycle_by_hand():
    assert rate(CYCLE, 0, 10) == pytest.approx(0.02)  # 0.5 / 25
    assert rate(CYCLE, 1, 10) == pytest.approx(0.26)  # halfway up
    assert rate(CYCLE, 2, 10) == pytest.approx(0.5)
    assert rate(CYCLE, 6, 10) == pytest.approx((0.5 + 0.0002) / 2)  # halfway down
    assert rate(CYCLE, 10, 10) == pytest.approx(0.0002)


@pytest.mark.parametrize("steps", [2, 7, 50])
def test_one_cycle_is_torchs(steps):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = make_optimizer([weight], CYCLE)
    total = 10 * steps + 1
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        0.5,
        total,
        pct_start=(2 * steps + 1) / total,
        div_factor=25,
        final_div_factor=100,
    )
    for step in range(total):
        assert theirs.get_last_lr()[0] == pytest.approx(rate(CYCLE, step / steps, 10), rel=1e-6)
        if step < total - 1:
            optimizer.step()
            theirs.step()


def test_sgd_and_adamw_steps_by_hand():
    for config, expected in (
        (Optimizer(lr=0.1, weight_decay=0.0), 1 - 0.1 * 2),  # dampening starts with the second step
        (Optimizer(kind="adamw", lr=0.1, weight_decay=0.5), 1 - 0.1 * 0.5 - 0.1),
    ):
        weight = torch.nn.Parameter(torch.ones(1))
        optimizer = make_optimizer([weight], config)
        (2 * weight).sum().backward()
        optimizer.step()
        assert weight.item() == pytest.approx(expected, abs=1e-5)


def test_a_rate_of_zero_is_refused():
    with pytest.raises(UserError, match="optimizer.lr: must be above 0 and finite, got 0"):
        Optimizer(lr=0)

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from train.mixture import check_mixture, epoch_order, mixed_order, shares
from train.stores import IntensityScale, StorePaths

SMALL, LARGE = np.arange(0, 60, 2), np.arange(100)


@dataclass
class Scale:
    """Stores as far as the check looks at them."""

    max: float
    intensity: str = "normalized"
    offset: float = 0.0
    squash: str = "none"

    @property
    def paths(self):
        return StorePaths(Path("city"), intensity=self.intensity)

    @property
    def intensity_scale(self):
        return IntensityScale(self.offset, self.max, self.squash)


def test_one_set_keeps_its_order():
    order = mixed_order([LARGE], (), seed=3, epoch=2)
    assert order == [(0, row) for row in epoch_order(LARGE, 3, 2).tolist()]


def test_without_weights_every_frame_comes_once_an_epoch():
    for epoch in (0, 3):
        order = mixed_order([SMALL, LARGE], (), 0, epoch)
        assert sorted(row for part, row in order if part == 0) == SMALL.tolist()
        assert sorted(row for part, row in order if part == 1) == LARGE.tolist()
    assert order != mixed_order([SMALL, LARGE], (), 0, 0)
    assert order == mixed_order([SMALL, LARGE], (), 0, 3)


def test_sets_are_mixed_throughout():
    parts = [part for part, _ in mixed_order([SMALL, LARGE], (1, 1), 0, 0)]
    assert len(parts) == 130 and sum(parts) == 65
    for start in range(0, 120, 40):
        assert 8 < sum(parts[start : start + 40]) < 32


def test_a_small_share_goes_on_where_it_stopped():
    # 13 of 130 samples a set of 100: after eight epochs it has been seen whole, after sixteen twice
    seen = []
    for epoch in range(8):
        order = mixed_order([SMALL, LARGE], (9, 1), 0, epoch)
        assert len(order) == 130
        seen += [row for part, row in order if part == 1]
    assert len(seen) == 104 and sorted(set(seen)) == LARGE.tolist()
    assert len(set(seen[:100])) == 100


@pytest.mark.parametrize(
    ("sizes", "weights", "expected"),
    [
        ([30, 100], (), [30, 100]),
        ([30, 100], (1, 1), [65, 65]),
        ([10, 10, 10], (1, 1, 4), [5, 5, 20]),
        ([3, 3, 1], (1, 1, 1), [2, 3, 2]),
    ],
)
def test_shares_by_hand(sizes, weights, expected):
    assert shares(sizes, weights) == expected
    assert sum(expected) == sum(sizes)


def test_sets_that_do_not_go_together_are_refused():
    both = [Scale(255.0), Scale(1.0)]
    raw = [Scale(255.0, "slidr"), Scale(1.0, "slidr")]
    check_mixture(both, (2, 1))
    check_mixture(raw[:1], ())
    with pytest.raises(UserError, match=r"normalized .*255, \+0, none, up to 1, .* got slidr; add"):
        check_mixture(raw, ())
    for other in (Scale(1.0, "slidr", offset=1.0), Scale(1.0, "slidr", squash="tanh")):
        with pytest.raises(UserError, match="normalized for data sets with other scales, offsets"):
            check_mixture([raw[1], other], ())
    for weights in ((1.0,), (1.0, 0.0), (1.0, 2.0, 3.0)):
        with pytest.raises(UserError, match="dataset_weights: must be 2 numbers above 0"):
            check_mixture(both, weights)

import dataclasses

import pytest

from pipeline.errors import UserError
from train.losses.table import LOSSES
from train.recipes import WEIGHTS, Losses


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss_has_a_frozen_config_and_a_function(name):
    module = LOSSES.load(name)
    config = module.Config()
    assert callable(module.loss) and callable(module.of_batch)
    assert module.reads(config) <= {"images", "superpixels", "segments", "successor"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.anything = 1.0


def test_every_loss_can_be_weighed_in_a_recipe():
    assert set(WEIGHTS) == set(LOSSES)
    for name, field in WEIGHTS.items():
        losses = Losses(**{field: 0.5})
        assert losses.weights == {name: 0.5}
        assert losses.reads == LOSSES.load(name).reads(getattr(losses, name))


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'temporal_nce'"):
        LOSSES.load("temporal_nse")

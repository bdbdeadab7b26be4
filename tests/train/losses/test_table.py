import dataclasses

import pytest

from pipeline.errors import UserError
from train.losses.table import LOSSES


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss_has_a_frozen_config_and_a_function(name):
    module = LOSSES.load(name)
    config = module.Config()
    assert callable(module.loss)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.temperature = 1.0


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'temporal_nce'"):
        LOSSES.load("temporal_nse")

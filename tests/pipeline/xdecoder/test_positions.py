import math

import torch

from pipeline.xdecoder.positions import sine_positions, sine_waves

CPU = torch.device("cpu")


def test_waves_by_hand():
    waves = sine_waves(torch.tensor([0.5]), 4)[0]
    # frequencies 1, 1, 1 / 100, 1 / 100; sine and cosine in turn
    want = [math.sin(0.5), math.cos(0.5), math.sin(0.005), math.cos(0.005)]
    torch.testing.assert_close(waves, torch.tensor(want))


def test_positions_by_hand():
    found = sine_positions(2, 4, 4, CPU)
    assert found.shape == (8, 4)
    row, column = 1 / 2 * 2 * math.pi, 3 / 4 * 2 * math.pi  # first row, third column, from 1
    want = [math.sin(row), math.cos(row), math.sin(column), math.cos(column)]
    torch.testing.assert_close(found[2], torch.tensor(want), atol=1e-5, rtol=0)


def test_rows_and_columns_change_places_when_the_map_is_turned():
    upright = sine_positions(3, 5, 8, CPU).reshape(3, 5, 8)
    lying = sine_positions(5, 3, 8, CPU).reshape(5, 3, 8).transpose(0, 1)
    torch.testing.assert_close(upright, torch.cat((lying[..., 4:], lying[..., :4]), dim=-1))

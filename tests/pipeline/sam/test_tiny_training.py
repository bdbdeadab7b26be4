"""The training of the tiny SAM: losses by hand, prompts on their segments, a few steps."""

import numpy as np
import pytest
import torch

from pipeline.sam import tiny_training
from pipeline.sam.shape import read_shape
from pipeline.sam.tiny_losses import balanced, dice, likeness, overlap
from pipeline.sam.tiny_start import TINY, Settings, start_near
from pipeline.sam.tiny_training import Picture, draw, train
from pipeline.superpixels.sam import build


def halves():
    """A picture of two segments, dark left and bright right."""
    image = np.zeros((234, 416, 3), np.uint8)
    image[:, 208:] = 200
    pieces = np.full((234, 416), 7)
    pieces[:, 208:] = 12
    return Picture(image, pieces)


def test_losses_by_hand():
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0]])[None, None]
    sure = 50 * (2 * target - 1)
    assert balanced(sure, target).item() == pytest.approx(0, abs=1e-6)
    assert balanced(0 * sure, target).item() == pytest.approx(np.log(2))
    inverted_outside = torch.where(target > 0, 50.0, torch.tensor(50.0))  # three of four wrong
    assert balanced(inverted_outside, target).item() == pytest.approx(25)  # half of the weight
    assert dice(sure, target).item() == pytest.approx(0, abs=1e-6)
    assert overlap(sure > 0, target > 0.5).item() == 1
    assert overlap(inverted_outside > 0, target > 0.5).item() == 0.25


def test_an_embedding_that_tells_segments_apart_has_no_loss():
    tokens = torch.zeros(2, 4, 4)
    tokens[0, :, :2], tokens[1, :, 2:] = 1.0, 1.0
    points = torch.tensor([[1.0, 1.0], [14.0, 9.0]])  # in a square of 16 px
    targets = torch.zeros(2, 16, 16)
    targets[0, :, :8], targets[1, :, 8:] = 1.0, 1.0
    apart = likeness(tokens, points, targets, 16)
    assert apart < 0.01 < likeness(torch.ones(2, 4, 4), points, targets, 16)


def test_points_lie_on_what_they_ask_for():
    prompted = draw(halves(), Settings(prompts=12), np.random.default_rng(0))
    assert prompted.image.shape == (3, 117, 208) and prompted.targets.shape == (12, 59, 104)
    for point, target in zip(prompted.points, prompted.targets, strict=True):
        x, y = (point / 2).long()
        assert target[y, x] > 0.4
        bright = prompted.image[0, :, :].mean() < prompted.image[0, int(point[1]), int(point[0])]
        inside = torch.nn.functional.interpolate(target[None, None], (117, 208))[0, 0] > 0.5
        shade = prompted.image[0][inside].mean()
        assert bright == (shade > prompted.image[0].mean())


def test_a_few_steps_change_the_weights_and_keep_the_shape(capsys):
    torch.manual_seed(0)
    model = build(TINY)
    start_near(model, Settings())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train(model.train(), [halves()], 0, Settings(steps=2, prompts=4))
    after = model.state_dict()
    assert "step 2/2" in capsys.readouterr().err
    assert (after["image_encoder.patch_embed.proj.weight"] != before[
        "image_encoder.patch_embed.proj.weight"]).any()  # fmt: skip
    assert all(value.isfinite().all() for value in after.values())
    assert read_shape("file", after) == TINY
    assert sum(value.numel() * 4 for value in after.values()) < 8e6


@pytest.mark.slow
def test_pictures_are_those_of_the_city():
    found = tiny_training.draw_pictures(1000, 1, (0.5,))
    assert len(found) == 6 and found[0].image_rgb.shape == (234, 416, 3)
    assert max(len(np.unique(each.pieces)) for each in found) > 10

import math

import pytest
import torch

from pipeline.xdecoder.box_decoder import box_waves, proposal_boxes
from pipeline.xdecoder.family import OPENSEED
from pipeline.xdecoder.masked_decoder import unit
from tests.pipeline.xdecoder.tiny import random_image, tiny_model, unit_classes

CPU = torch.device("cpu")


def test_proposals_by_hand():
    boxes = proposal_boxes([(1, 1), (1, 2)], CPU)
    want = [[0.5, 0.5, 0.05, 0.05], [0.25, 0.5, 0.1, 0.1], [0.75, 0.5, 0.1, 0.1]]
    torch.testing.assert_close(boxes, torch.tensor(want))


def test_box_waves_put_y_first():
    found = box_waves(torch.tensor([[[0.25, 0.5, 0.125, 1.0]]]), 4)
    angles = [0.5, 0.25, 0.125, 1.0]  # y, x, width, height
    want = [f(2 * math.pi * angle) for angle in angles for f in (math.sin, math.cos)]
    torch.testing.assert_close(found[0, 0], torch.tensor(want), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("place", "is_valid"), [(1, False), (2, True), (60, False)])
def test_places_at_the_border_are_not_proposed(place, is_valid):
    model = tiny_model(OPENSEED, num_queries=4).predictor
    memory = torch.randn(1, 61, 32)  # one place of the coarse level, then a row of 60
    wanted = model.enc_output_norm(model.enc_output(memory[:, place]))
    classes = unit_classes(133)
    classes[0] = unit(wanted @ model.class_embed)[0]  # that place is exactly what class 0 looks for
    proposals = model.propose(memory, [(1, 1), (1, 60)], classes)
    is_there = (proposals.content[0] - wanted).abs().max(-1).values < 1e-4
    assert bool(is_there[0]) == is_valid  # its center is at 1 / 120, 3 / 120 or 119 / 120


def test_best_scores_are_chosen_in_falling_order():
    model = tiny_model(OPENSEED, num_queries=5).predictor
    memory, classes, sizes = torch.randn(2, 30, 32), unit_classes(133), [(2, 3), (4, 6)]
    proposals = model.propose(memory, sizes, classes)
    scores = model.class_logits(proposals.content, classes).max(-1).values
    everywhere = model.class_logits(model.enc_output_norm(model.enc_output(memory)), classes)
    want = everywhere.max(-1).values.sort(descending=True).values[:, :5]
    torch.testing.assert_close(scores, want, atol=1e-5, rtol=1e-5)


def test_prediction_sizes():
    model = tiny_model(OPENSEED, num_queries=7)
    prediction = model(random_image(33, 65), unit_classes(133))
    assert prediction.logits.shape == (1, 7, 133)
    assert prediction.masks.shape == (1, 7, 16, 24)  # a quarter of the padded 64 x 96
    assert prediction.blocked is None

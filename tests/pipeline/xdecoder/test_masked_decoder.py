import math
from dataclasses import replace

import pytest
import torch

from pipeline.xdecoder.family import SEEM, XDECODER
from pipeline.xdecoder.masked_decoder import (
    blocked_positions,
    class_logits,
    gather_class_query,
    resize,
)
from tests.pipeline.xdecoder.tiny import random_image, tiny_model, unit_classes


def test_class_logits_by_hand():
    vectors = torch.tensor([[[3.0, 4.0]]])
    classes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    found = class_logits(vectors, classes, torch.tensor(math.log(10.0)))
    torch.testing.assert_close(found, torch.tensor([[[6.0, 8.0, -6.0]]]), atol=1e-4, rtol=0)


def test_class_query_by_hand():
    # the last query is as like to the first as to the second (cosine 1 / sqrt 2): a plain mean
    z = torch.tensor([[[2.0, 0.0], [0.0, 4.0], [7.0, 7.0]]])
    found = gather_class_query(z)
    torch.testing.assert_close(found[0, :2], z[0, :2])
    torch.testing.assert_close(found[0, 2], torch.tensor([1.0, 2.0]))


def test_blocked_where_the_mask_is_below_one_half_but_never_everywhere():
    masks = torch.tensor([[[[1.0, -1.0], [0.0, -2.0]], [[-1.0, -1.0], [-3.0, -1.0]]]])
    found = blocked_positions(masks, torch.Size((2, 2)), SEEM)
    assert found.tolist() == [[[False, True, False, True], [False] * 4]]


def test_resize_leaves_equal_sizes_alone_and_knows_both_ways():
    x = torch.arange(16.0).reshape(1, 4, 4)
    assert resize(x, (4, 4), "bicubic") is x
    # without antialias two pixels are averaged, with it all are weighed
    plain = resize(x, (1, 1), "bilinear")
    torch.testing.assert_close(plain, torch.full((1, 1, 1), 7.5))
    spike = torch.zeros(1, 8, 8)
    spike[0, 0, 0] = 64.0
    assert resize(spike, (1, 1), "bilinear").item() == 0
    assert resize(spike, (1, 1), "bicubic").item() != 0


@pytest.mark.parametrize("family", [SEEM, XDECODER], ids=["seem", "xdecoder"])
def test_queries_may_come_in_any_order(family):
    model = tiny_model(family)
    image, classes = random_image(40, 70), unit_classes()
    before = model(image, classes)
    order = torch.randperm(11)
    order = torch.cat((order, torch.tensor([11])))  # the class query stays the last
    for table in (model.predictor.query_feat, model.predictor.query_embed):
        table.weight.data = table.weight.data[order]
    after = model(image, classes)
    torch.testing.assert_close(after.masks, before.masks[:, order], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(after.logits, before.logits[:, order], atol=1e-3, rtol=1e-3)


def test_the_class_query_is_seen_by_none_and_sees_none():
    isolated = tiny_model(XDECODER).predictor._isolated(torch.zeros(1, 3, 8))
    assert isolated.tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    assert tiny_model(SEEM).predictor._isolated(torch.zeros(1, 3, 8)) is None


def test_the_class_query_does_not_touch_the_others():
    image, classes = random_image(40, 70), unit_classes()
    for family, is_apart in ((XDECODER, True), (replace(XDECODER, has_class_query=False), False)):
        model = tiny_model(family)
        before = model(image, classes).masks[:, :-1]
        model.predictor.query_feat.weight.data[-1] += 1.0
        after = model(image, classes).masks[:, :-1]
        assert torch.equal(before, after) == is_apart

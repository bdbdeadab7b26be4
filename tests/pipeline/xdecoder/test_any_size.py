"""What holds for any image and any number of masks, whatever the fixtures' sizes happen to be."""

import numpy as np
import pytest
import torch

from pipeline.xdecoder.family import OPENSEED, SEEM, XDECODER
from pipeline.xdecoder.masked_decoder import resize
from pipeline.xdecoder.model import padded_size
from pipeline.xdecoder.panoptic import Kept, merge
from tests.pipeline.xdecoder.tiny import random_image, tiny_model, unit_classes

FAMILIES = [SEEM, XDECODER, OPENSEED]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
SIZES = [(1, 100), (7, 131), (64, 96), (33, 65), (97, 61)]


def predict(family, images, **options):
    model = tiny_model(family, **options)
    with torch.inference_mode():
        return model, model(images, unit_classes(134 if family.has_background else 133))


@each_family
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_image_size_gives_ids_without_gaps_at_any_output_size(family, size):
    model, prediction = predict(family, random_image(*size))
    assert prediction.masks.shape[2:] == tuple(side // 4 for side in padded_size(size))
    for output in (size, (50, 83)):
        (found,) = model.panoptic(prediction, size, output, 0.0, 0.0)
        assert found.ids.shape == output and found.ids.dtype == np.uint16
        assert set(np.unique(found.ids)) - {0} <= set(range(1, len(found.category)))
        assert found.category[0] == -1 and (found.category[1:] >= 0).all()


@each_family
def test_a_threshold_that_nobody_reaches_leaves_every_pixel_without(family):
    model, prediction = predict(family, random_image(33, 65))
    (found,) = model.panoptic(prediction, (33, 65), (33, 65), 1.0, 0.8)
    assert not found.ids.any() and found.category.tolist() == [-1]


@each_family
def test_images_of_a_batch_have_the_maps_that_they_have_alone(family):
    """Seeds 3 and 4, an odd size; a query at a threshold could flip, so the lowest are taken."""
    images = torch.cat([random_image(61, 75, seed) for seed in (3, 4)])
    model, both = predict(family, images, seed=5, is_dw=not family.has_class_query)
    together = model.panoptic(both, (61, 75), (61, 75), 0.0, 0.1)
    for i, found in enumerate(together):
        _, alone = predict(family, images[i : i + 1], seed=5, is_dw=not family.has_class_query)
        (single,) = model.panoptic(alone, (61, 75), (61, 75), 0.0, 0.1)
        assert single.category.tolist() == found.category.tolist()
        assert (single.ids != found.ids).mean() < 0.002  # a tie at a border
    assert all(len(found.category) > 1 for found in together)


def test_openseed_proposes_at_most_as_many_places_as_there_are():
    """32 x 128 pixels: 64 + 16 + 4 + 2 places for 300 queries."""
    _, prediction = predict(OPENSEED, random_image(20, 100), num_queries=300)
    assert prediction.logits.shape == (1, 86, 133)


def test_more_than_255_segments():
    """300 things of one pixel each: an 8-bit map, as upstream saves, would wrap around."""
    masks = (torch.eye(300).reshape(300, 15, 20) - 0.5) * 20
    kept = Kept(torch.arange(300), torch.full((300,), 0.9), torch.zeros(300, dtype=torch.int64))
    found = merge(kept, masks, (15, 20), 0.8)
    assert np.array_equal(found.ids, np.arange(1, 301).reshape(15, 20))
    assert found.category.tolist() == [-1] + [0] * 300


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_resize_to_a_slightly_smaller_map_equals_the_one_by_hand(mode):
    """A ramp stays a ramp inside: both are linear there, whatever the antialiasing."""
    ramp = torch.arange(40.0).expand(6, 40)
    shrunk = resize(ramp, (6, 30), mode)
    centers = (torch.arange(30) + 0.5) * 40 / 30 - 0.5
    torch.testing.assert_close(shrunk[3, 5:25], centers[5:25], atol=2e-2, rtol=0)

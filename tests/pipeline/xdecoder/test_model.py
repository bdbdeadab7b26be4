import pytest
import torch

from pipeline.xdecoder.family import OPENSEED, SEEM, XDECODER
from pipeline.xdecoder.model import full_size, normalize, padded_size
from tests.pipeline.xdecoder.tiny import random_image, tiny_model, unit_classes


def test_normalize_by_hand():
    images = torch.tensor([123.675, 116.28 + 57.12, 103.53]).reshape(1, 3, 1, 1).expand(1, 3, 33, 5)
    found = normalize(images)
    assert found.shape == (1, 3, 64, 32)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0)
    # zeros are padded after the mean is taken away, right and below
    assert found[0, 1, 32, 4] == pytest.approx(1.0)
    assert not found[0, :, 33:].any() and not found[0, :, :, 5:].any()


def test_normalize_refuses_other_layouts():
    with pytest.raises(ValueError, match=r"must be \[B, 3, H, W\], got \[1, 4, 4, 3\]"):
        normalize(torch.zeros(1, 4, 4, 3))


def test_padded_size():
    assert padded_size((900, 1600)) == (928, 1600)
    assert padded_size((1, 32)) == (32, 32)


def test_masks_are_cut_before_they_are_brought_to_size():
    masks = torch.zeros(1, 8, 8)
    masks[:, :, 4:] = 10.0  # only in what is padding: columns 16 and up of 32
    (found,) = full_size(masks, (20, 10), (40, 20), SEEM)
    assert found.shape == (40, 20)
    assert found.abs().max() == 0


@pytest.mark.parametrize("family", [SEEM, XDECODER, OPENSEED], ids=lambda family: family.name)
@pytest.mark.parametrize("is_dw", [False, True])
def test_a_batch_is_its_images(family, is_dw):
    model = tiny_model(family, is_dw=is_dw)
    classes = unit_classes(134 if family.has_background else 133)
    images = torch.cat([random_image(45, 71, seed) for seed in range(3)])
    both = model(images, classes)
    for i in range(3):
        alone = model(images[i : i + 1], classes)
        torch.testing.assert_close(both.logits[i], alone.logits[0], atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(both.masks[i], alone.masks[0], atol=5e-3, rtol=1e-3)


def test_no_gradients_and_no_training():
    model = tiny_model(SEEM)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())

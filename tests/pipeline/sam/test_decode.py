"""The rearranged decoder against the package's own forward."""

import pytest
import torch

from pipeline.sam.decode import draw, rate, share
from tests.pipeline.sam.small import SMALL, other, random_sam


@pytest.mark.parametrize("shape", [SMALL, other(dim=64, decoder_depth=3, masks=2)])
def test_equals_the_package(shape):
    model = random_sam(shape)
    embedding = torch.randn(shape.dim, shape.grid, shape.grid)
    points = shape.image_size * torch.rand(5, 2, dtype=torch.float64)
    labels = torch.ones(5, 1, dtype=torch.int)
    sparse, dense = model.prompt_encoder((points[:, None], labels), None, None)
    positions = model.prompt_encoder.get_dense_pe()
    masks, iou = model.mask_decoder(embedding[None], positions, sparse, dense, True)
    rated = rate(model, share(model, embedding), points)
    kept = torch.tensor([3, 0])
    assert torch.allclose(rated.iou, iou, atol=1e-5)
    scale = masks.abs().max()
    assert torch.allclose(draw(model, rated, kept) / scale, masks[kept] / scale, atol=1e-5)


def test_prompts_do_not_know_of_each_other():
    model = random_sam()
    shared = share(model, torch.randn(SMALL.dim, SMALL.grid, SMALL.grid))
    points = SMALL.image_size * torch.rand(6, 2, dtype=torch.float64)
    together, alone = rate(model, shared, points), rate(model, shared, points[4:5])
    assert torch.allclose(together.iou[4:5], alone.iou, atol=1e-6)


def test_nothing_is_upsampled_where_nothing_is_kept():
    model = random_sam()
    shared = share(model, torch.randn(SMALL.dim, SMALL.grid, SMALL.grid))
    rated = rate(model, shared, torch.tensor([[1.0, 2.0]]))
    assert draw(model, rated, torch.zeros(0, dtype=torch.long)).shape == (0, 3, 64, 64)

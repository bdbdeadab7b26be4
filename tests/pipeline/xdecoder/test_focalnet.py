import pytest
import torch
import torch.nn.functional as F

from pipeline.xdecoder.family import SEEM
from pipeline.xdecoder.focalnet import FocalBlock, FocalModulation
from tests.pipeline.xdecoder.tiny import random_image, tiny_model


def _random(module, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))
    return module


def modulate_slowly(net: FocalModulation, x: torch.Tensor) -> torch.Tensor:
    """The fact sheet's text, line by line: one projection, split in order; channels first."""
    dim, num_levels = net.dim, len(net.focal_layers)
    p = net.f(x).permute(0, 3, 1, 2)
    q, context, gates = p[:, :dim], p[:, dim : 2 * dim], p[:, 2 * dim :]
    total = 0
    for level, layer in enumerate(net.focal_layers):
        kernel = layer[0].weight
        padding = kernel.shape[-1] // 2
        context = F.gelu(F.conv2d(context, kernel, padding=padding, groups=dim))
        total = total + context * gates[:, level : level + 1]
    total = total + F.gelu(context.mean((2, 3), keepdim=True)) * gates[:, num_levels:]
    total = total / (num_levels + 1)
    return net.proj((q * net.h(total)).permute(0, 2, 3, 1))


@pytest.mark.parametrize("kernels", [(3,), (3, 5, 7), (3, 5, 7, 9)])
def test_modulation_equals_its_slow_twin(kernels):
    net = _random(FocalModulation(6, kernels))
    x = torch.randn(2, 7, 9, 6)
    torch.testing.assert_close(net(x), modulate_slowly(net, x), atol=1e-5, rtol=1e-5)


def test_modulation_by_hand():
    net = FocalModulation(1, (3,))
    with torch.no_grad():
        net.f.weight.copy_(torch.tensor([[1.0], [1.0], [0.0], [0.0]]))  # q, context, two gates
        net.f.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 0.0]))  # first gate open, second shut
        net.focal_layers[0][0].weight.zero_()
        net.focal_layers[0][0].weight[0, 0, 1, 1] = 1.0
        for layer in (net.h, net.proj):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    # context 2 -> gelu(2) = 1.9545; gates 1, 0; divided by two levels: 0.97725; times query 2
    found = net(torch.full((1, 1, 1, 1), 2.0))
    torch.testing.assert_close(found.item(), 1.9545, atol=1e-4, rtol=0)


def test_norm_is_on_the_branch_or_on_the_sum():
    x = torch.randn(1, 4, 4, 8) * 5
    plain, dw = (_random(FocalBlock(8, (3,), is_dw)) for is_dw in (False, True))
    with torch.no_grad():
        for block in (plain, dw):
            for norm in (block.norm1, block.norm2):
                norm.weight.fill_(1.0)
                norm.bias.zero_()
            block.gamma_1.zero_()
            block.gamma_2.zero_()
    # with shut branches the plain block changes nothing; the dw one still ends with a norm
    torch.testing.assert_close(plain(x), x)
    found = dw(x)
    torch.testing.assert_close(found.mean(-1), torch.zeros(1, 4, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.var(-1, correction=0), torch.ones(1, 4, 4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("is_dw", [False, True])
def test_map_sizes(is_dw):
    backbone = tiny_model(SEEM, is_dw=is_dw).backbone
    maps = backbone(random_image(64, 96))
    shapes = [tuple(level.shape[1:]) for level in maps]
    assert shapes == [(8, 16, 24), (16, 8, 12), (32, 4, 6), (64, 2, 3)]
    assert backbone.widths == (8, 16, 32, 64)

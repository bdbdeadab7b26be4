"""The peer's adapter computes what the native engine does; only where spconv is installed."""

import pytest
import torch

from train.engines import native

spconv_engine = pytest.importorskip("benchmarks.spconv_engine", reason="spconv is not installed")


def in_order(coordinates, features):
    _, order = torch.unique(coordinates, dim=0, return_inverse=True)
    return features[torch.argsort(order)]


def test_it_equals_native():
    random = torch.Generator().manual_seed(0)
    where = torch.unique(torch.randint(-9, 10, (400, 4), generator=random), dim=0).int()
    where = where[where[:, 0].abs() < 2]
    where[:, 0] = where[:, 0].abs()
    where = torch.unique(where, dim=0)
    features = torch.randn(len(where), 8, generator=random)
    low = torch.div(where[:, 1:].amin(0), 16, rounding_mode="floor") * 16
    for kernel_size, stride in ((3, 1), (2, 2)):
        ours = native.Convolution(8, 16, kernel_size, stride)
        theirs = spconv_engine.Convolution(8, 16, kernel_size, stride)
        theirs.use_kernel(ours.kernel)
        some = ours(native.make_tensor(features, where))
        other = theirs(spconv_engine.make_tensor(features, where))
        moved = some.coordinates - torch.cat([low.new_zeros(1), low])
        expected = in_order(moved, some.features)
        got = in_order(other.coordinates, other.features)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    back = native.TransposedConvolution(16, 8, 2, 2)
    theirs = spconv_engine.TransposedConvolution(16, 8, 2, 2)
    theirs.use_kernel(back.kernel)
    torch.testing.assert_close(theirs(other).features, back(some).features, rtol=1e-5, atol=1e-6)

"""What only the native engine promises: gradients to float64, autocast, range, fixed bits."""

import pytest
import torch

from train.engines import native
from train.engines.levels import MARGIN, Grid


def cloud(num_rows=120, seed=0):
    random = torch.Generator().manual_seed(seed)
    where = torch.randint(-6, 7, (num_rows, 4), generator=random, dtype=torch.int32)
    where[:, 0] = where[:, 0].abs() % 2
    return torch.unique(where, dim=0)


def test_gradients_agree_with_finite_differences():
    where = cloud(12)
    same = native.Convolution(2, 2, kernel_size=3).double()
    down = native.Convolution(2, 3, kernel_size=2, stride=2).double()
    up = native.TransposedConvolution(3, 2, kernel_size=2, stride=2).double()

    features = torch.randn(len(where), 2, dtype=torch.float64, requires_grad=True)

    def run(*_):  # gradcheck moves the very tensors that the layers hold
        return up(down(same(native.make_tensor(features, where)))).features

    kernels = (same.kernel, down.kernel, up.kernel)
    assert torch.autograd.gradcheck(run, (features, *kernels))


def test_keys_and_cells_are_inverse_and_keep_the_order():
    where = cloud().long()
    grid = Grid.around(where.amin(0).tolist(), where.amax(0).tolist())
    assert grid.cells(grid.keys(where)).equal(where)
    assert (grid.keys(where).diff() > 0).all()  # torch.unique sorts rows lexicographically
    assert grid.keys(torch.tensor([grid.low])).item() == 0
    assert MARGIN >= 8 - 1 + 9 - 1  # the widest kernel at the widest stride stays inside


def test_a_cloud_too_wide_to_number_is_refused():
    ends = torch.tensor([[0, -(2**31), 0, 0], [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]])
    with pytest.raises(ValueError, match="more than 2\\^63 in all; drop far points"):
        native.make_tensor(torch.ones(2, 1), ends.int())
    wide = torch.tensor([[0, -(2**20), 0, 0], [0, 2**20, 2**20, -(2**17)]]).int()
    assert native.make_tensor(torch.ones(2, 1), wide).coordinates.equal(wide)


def test_transposed_convolution_needs_a_level_to_go_back_to():
    tensor = native.make_tensor(torch.ones(1, 1), torch.zeros(1, 4).int())
    up = native.TransposedConvolution(1, 1, kernel_size=2, stride=2)
    with pytest.raises(RuntimeError, match="stride 2 must lead back to a level"):
        up(tensor)


def test_autocast_computes_in_bfloat16_and_keeps_float32_gradients():
    where, random = cloud(), torch.Generator().manual_seed(1)
    features = torch.randn(len(where), 16, generator=random, requires_grad=True)
    convolution = native.Convolution(16, 8, kernel_size=3)
    exact = convolution(native.make_tensor(features, where)).features
    with torch.autocast("cpu", torch.bfloat16):
        rough = convolution(native.make_tensor(features, where)).features
    assert rough.dtype == torch.bfloat16
    rough.float().sum().backward()
    assert features.grad.dtype == convolution.kernel.grad.dtype == torch.float32
    # bfloat16 keeps 8 bits: 2^-8 of inputs of size 1, summed over some 5 products
    torch.testing.assert_close(rough.float(), exact, rtol=0.02, atol=0.02)


def test_the_same_call_gives_the_same_bits():
    where = cloud(400)
    features = torch.randn(len(where), 8)
    convolution = native.Convolution(8, 8, kernel_size=3)
    results = []
    for _ in range(3):
        convolution.kernel.grad = None
        result = convolution(native.make_tensor(features, where)).features
        result.square().sum().backward()
        results.append((result.detach(), convolution.kernel.grad))
    assert all(r.equal(results[0][0]) and g.equal(results[0][1]) for r, g in results)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu():
    where = cloud(400)
    features = torch.randn(len(where), 8)
    convolution = native.Convolution(8, 8, kernel_size=3)
    expected = convolution(native.make_tensor(features, where)).features
    got = convolution.cuda()(native.make_tensor(features.cuda(), where.cuda())).features.cpu()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)  # TF32 may be on

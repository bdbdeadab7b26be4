"""What only the native engine promises: gradients to float64, autocast, range, fixed bits."""

import sys
import types

import pytest
import torch

from tests.train.engines.waiting import no_waiting
from train import engines
from train.engines import native
from train.engines.levels import MARGIN, Grid, places_of_known_count
from train.models.minkunet import MAPS, minkunet_small


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


def network_step(where):
    """Return the output and all gradients of one step of the small network."""
    torch.manual_seed(0)
    network = minkunet_small(2, 8, engine="native")
    features = torch.randn(len(where), 2, generator=torch.Generator().manual_seed(1))
    out = network(features, where)
    (out * torch.linspace(-1, 1, 8)).sum().backward()
    return out.detach(), *(p.grad for p in network.parameters())


def test_maps_made_at_once_are_those_made_one_by_one():
    where = cloud(300)
    at_once = native.make_tensor(torch.ones(len(where), 1), where, MAPS).map
    assert list(at_once.kernel_maps) == list(MAPS) and sorted(at_once.levels) == [1, 2, 4, 8, 16]
    one_by_one = native.make_tensor(torch.ones(len(where), 1), where).map
    for key in MAPS:
        some, other = at_once.kernel_map(*key), one_by_one.kernel_map(*key)
        assert at_once.levels[key[1]].cells.equal(one_by_one.levels[key[1]].cells)
        assert some.fine.counts == other.fine.counts
        assert some.fine.ends.tolist() == torch.tensor(some.fine.counts).cumsum(0).tolist()
        for side in ("fine", "coarse"):
            assert getattr(some, side).rows.equal(getattr(other, side).rows)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_places_of_a_known_count_are_those_of_nonzero(share):
    mask = torch.rand(500, generator=torch.Generator().manual_seed(2)) < share
    expected = mask.nonzero()[:, 0]
    assert places_of_known_count(mask, len(expected)).equal(expected)


def test_a_step_asks_the_device_three_times(monkeypatch):
    where = cloud(300)
    expected = network_step(where)
    with no_waiting(monkeypatch) as reads:
        got = network_step(where)
    # the corners of the cloud; the voxels of 5 levels; the pairs of every offset of 5 maps of 27
    # offsets and 4 of 8
    assert reads == [8, 5, 5 * 27 + 4 * 8]
    assert all(a.equal(b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("code", ["x.tolist()", "bool(x.any())", "x[x > 0]", "x.nonzero()"])
def test_waiting_is_found(monkeypatch, code):
    x = torch.arange(3.0)
    with pytest.raises(AssertionError, match="host wait"), no_waiting(monkeypatch):
        eval(code, {"x": x})
    assert x.tolist() == [0, 1, 2]


@pytest.mark.parametrize("num_rows", [0, 300])
@pytest.mark.parametrize("stride, kernel_size", [(1, 3), (2, 2)])
def test_tables_say_what_the_pairs_say(stride, kernel_size, num_rows):
    """What the Triton kernels walk over; they themselves need a GPU (tests/gpu)."""
    where = cloud(num_rows)
    whole = native.make_tensor(torch.zeros(len(where), 1), where)
    pairs = whole.map.kernel_map(1, stride, kernel_size)
    for source, target in ((pairs.fine, pairs.coarse), (pairs.coarse, pairs.fine)):
        expected = torch.full((kernel_size**3, target.num_rows), -1)
        parts = zip(source.by_offset, target.by_offset, strict=True)
        for offset, (rows_in, rows_out) in enumerate(parts):
            expected[offset, rows_out] = rows_in.long()
        assert target.table_of(source).equal(expected.int())


def test_back_along_an_offset_is_forth_along_the_opposite_one():
    where = cloud(300)
    pairs = native.make_tensor(torch.zeros(len(where), 1), where).map.kernel_map(1, 1, 3)
    forth, back = pairs.coarse.table_of(pairs.fine), pairs.fine.table_of(pairs.coarse)
    assert pairs.coarse.center is not None and back.equal(forth.flip(0))


def test_a_cpu_never_asks_for_triton(monkeypatch):
    monkeypatch.setattr(native, "load_fused", lambda device: pytest.fail("looked for Triton"))
    network_step(cloud(50))


def test_types_that_differ_are_refused_but_under_autocast():
    where = cloud(50)
    layer = native.Convolution(2, 3, kernel_size=3)
    doubles = native.make_tensor(torch.zeros(len(where), 2, dtype=torch.float64), where)
    with pytest.raises(RuntimeError, match="dtype"):
        layer(doubles)


@pytest.fixture
def fused(monkeypatch):
    """A GPU of compute capability 9.0 and kernels that only pretend; load_fused forgets."""
    fake = types.SimpleNamespace(
        LEAST_CAPABILITY=(8, 0), try_once=lambda device: None, serves=lambda *_: True
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "train.engines.fused", fake)
    monkeypatch.setattr(engines, "fused", fake, raising=False)
    native.load_fused.cache_clear()
    yield fake
    native.load_fused.cache_clear()


ROWS = types.SimpleNamespace(device=torch.device("cuda", 0))


def test_a_gpu_takes_the_triton_kernels(fused):
    assert native.fused_kernels(ROWS, None, None) is fused


def test_kernels_that_do_not_run_are_named_once(fused, capsys):
    def fail(device):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    fused.try_once = fail
    assert native.fused_kernels(ROWS, None, None) is native.fused_kernels(ROWS, None, None) is None
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cuda:0 (RuntimeError: Failed to find C compiler.)" in said


@pytest.mark.parametrize("capability", [(7, 5), (7, 0)])
def test_an_older_gpu_takes_the_plain_way(fused, capability, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    fused.try_once = lambda device: pytest.fail("compiled for it")
    assert native.fused_kernels(ROWS, None, None) is None
    assert capsys.readouterr().err == ""


def test_without_triton_a_gpu_says_so(fused, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "train.engines.fused", None)
    monkeypatch.delattr(engines, "fused")
    assert native.fused_kernels(ROWS, None, None) is None
    assert "ModuleNotFoundError" in capsys.readouterr().err

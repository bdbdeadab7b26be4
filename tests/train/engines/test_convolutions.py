"""Every engine against numbers worked by hand and against a slow twin that loops over voxels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.engines.table import ENGINES, default_engine


@pytest.fixture(params=list(ENGINES))
def engine(request):
    problem = ENGINES.problem(request.param)
    if problem:
        pytest.skip(problem)
    return ENGINES.load(request.param)


def usable():
    return [ENGINES.load(name) for name in ENGINES if ENGINES.problem(name) is None]


def cells(rows):
    return torch.tensor(rows, dtype=torch.int32).reshape(-1, 4)


def numbered(kernel):
    """Fill a [K^3, 1, 1] kernel with its own offset numbers 1, 2, 3, ..."""
    with torch.no_grad():
        kernel.copy_(torch.arange(1.0, len(kernel) + 1).view(-1, 1, 1))


def by_cell(tensor):
    rows = tensor.features.detach().tolist()
    return {tuple(c): f for c, f in zip(tensor.coordinates.tolist(), rows, strict=True)}


def offsets(kernel_size):
    first = -(kernel_size // 2) if kernel_size % 2 else 0
    steps = range(first, first + kernel_size)
    return [(x, y, z) for z in steps for y in steps for x in steps]  # x runs fastest


def twin(features, kernel, kernel_size, unit, targets, sign):
    """Sum over offsets o of features[target + sign * o * unit] @ kernel[o], as dicts."""
    result = {}
    for b, x, y, z in targets:
        total = torch.zeros(kernel.shape[2], dtype=kernel.dtype)
        for k, (dx, dy, dz) in enumerate(offsets(kernel_size)):
            step = sign * unit
            source = features.get((b, x + step * dx, y + step * dy, z + step * dz))
            if source is not None:
                total = total + source @ kernel[k]
        result[b, x, y, z] = total
    return result


def test_odd_kernel_by_hand(engine):
    # A and B touch along x, A and C along z; offset 1 + 14 is (1, 0, 0), 1 + 22 is (0, 0, 1)
    convolution = engine.Convolution(1, 1, kernel_size=3)
    numbered(convolution.kernel)
    tensor = engine.make_tensor(
        torch.tensor([[1.0], [10.0], [100.0]]), cells([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    )
    got = convolution(tensor)
    # A: itself (14), B at +x (15), C at +z (23). B: A at -x (13), C at (-1, 0, +1) (22).
    # C: A at -z (5), B at (+1, 0, -1) (6)
    expected = [[14 + 150 + 2300], [13 + 140 + 2200], [5 + 60 + 1400]]
    assert got.features.tolist() == expected
    assert got.coordinates.equal(tensor.coordinates)


def test_even_kernel_is_anchored_at_the_corner(engine):
    # stride 2: the voxels -2 and -1 meet in the coarse voxel -2, and 0 is alone in 0
    convolution = engine.Convolution(1, 1, kernel_size=2, stride=2)
    numbered(convolution.kernel)
    tensor = engine.make_tensor(
        torch.tensor([[1.0], [10.0], [100.0], [1000.0]]),
        cells([[0, -2, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    )
    got = by_cell(convolution(tensor))
    assert got == {(0, -2, 0, 0): [1 * 1 + 2 * 10], (0, 0, 0, 0): [3 * 100 + 5 * 1000]}


def test_transposed_convolution_goes_back_to_the_finer_voxels(engine):
    down = engine.Convolution(1, 1, kernel_size=2, stride=2)
    up = engine.TransposedConvolution(1, 1, kernel_size=2, stride=2)
    numbered(down.kernel)
    numbered(up.kernel)
    coordinates = cells([[0, 1, 1, 1], [0, 0, 0, 0], [1, 5, 0, 0]])
    got = up(down(engine.make_tensor(torch.tensor([[1.0], [10.0], [100.0]]), coordinates)))
    # coarse voxel (0; 0 0 0) holds 8 * 1 + 1 * 10 = 18; (1; 4 0 0) holds 2 * 100 = 200
    assert got.features.tolist() == [[8 * 18], [1 * 18], [2 * 200]]
    assert got.coordinates.equal(coordinates)


def test_bias_is_added_to_every_row(engine):
    convolution = engine.Convolution(1, 2, kernel_size=3, bias=True)
    with torch.no_grad():
        convolution.kernel.zero_()
        convolution.bias.copy_(torch.tensor([[3.0, 4.0]]))
    got = convolution(engine.make_tensor(torch.ones(1, 1), cells([[0, 0, 0, 0]])))
    assert got.features.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("kernel_size, stride", [(3, 1), (2, 2), (3, 2), (2, 1), (5, 1), (4, 3)])
def test_slow_twin_agrees(engine, kernel_size, stride):
    random = torch.Generator().manual_seed(kernel_size * 10 + stride)
    where = torch.randint(-5, 6, (90, 4), generator=random, dtype=torch.int32)
    where[:, 0] = where[:, 0].abs() % 3
    where = torch.unique(where, dim=0)[torch.randperm(len(where.unique(dim=0)), generator=random)]
    features = torch.randn(len(where), 4, generator=random, dtype=torch.float64)
    down = engine.Convolution(4, 3, kernel_size, stride).double()
    got = down(engine.make_tensor(features, where))
    sources = {tuple(c): f for c, f in zip(where.tolist(), features, strict=True)}
    targets = {
        (b, *(v // stride * stride for v in xyz)) for b, *xyz in (tuple(c) for c in where.tolist())
    }
    expected = twin(sources, down.kernel.detach(), kernel_size, 1, targets, 1)
    assert by_cell(got) == {k: pytest.approx(v.tolist(), abs=1e-12) for k, v in expected.items()}
    if stride > 1:
        up = engine.TransposedConvolution(3, 2, kernel_size, stride).double()
        back = up(got)
        assert back.coordinates.equal(where)
        expected = twin(expected, up.kernel.detach(), kernel_size, 1, list(sources), -1)
        assert by_cell(back) == {
            k: pytest.approx(v.tolist(), abs=1e-12) for k, v in expected.items()
        }


@given(
    rows=st.sets(st.tuples(st.integers(0, 2), *[st.integers(-4, 4)] * 3), min_size=1, max_size=40),
    shift=st.tuples(*[st.integers(-1000, 1000)] * 3),
)
@settings(max_examples=25)
def test_moving_a_cloud_by_whole_strides_changes_nothing(rows, shift):
    where = cells(sorted(rows))
    features = torch.arange(float(len(where)))[:, None]
    moved = where + torch.tensor([0, *(4 * s for s in shift)], dtype=torch.int32)
    for engine in usable():
        layers = [engine.Convolution(1, 2, 2, 2), engine.Convolution(2, 1, 2, 2)]
        sums = []
        for each in (where, moved):
            tensor = engine.make_tensor(features, each)
            for layer in layers:
                tensor = layer(tensor)
            sums.append(sorted(tensor.features.flatten().tolist()))
        assert sums[0] == pytest.approx(sums[1], abs=1e-5)


def test_rows_keep_their_order_under_permutation(engine):
    where = cells([[0, x, y, 0] for x in range(6) for y in range(6)])
    features = torch.randn(36, 3)
    order = torch.randperm(36)
    convolution = engine.Convolution(3, 2, kernel_size=3)
    straight = convolution(engine.make_tensor(features, where)).features
    mixed = convolution(engine.make_tensor(features[order], where[order])).features
    torch.testing.assert_close(mixed, straight[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_voxels", [0, 1])
def test_tiny_clouds_convolve_down_and_back(engine, num_voxels):
    where = cells([[0, -7, 3, 9]] * num_voxels)
    features = torch.ones(num_voxels, 2, requires_grad=True)
    same = engine.Convolution(2, 3, kernel_size=3)
    down = engine.Convolution(3, 3, kernel_size=2, stride=2)
    up = engine.TransposedConvolution(3, 4, kernel_size=2, stride=2)
    got = up(down(same(engine.make_tensor(features, where))))
    assert got.features.shape == (num_voxels, 4) and got.coordinates.equal(where)
    got.features.sum().backward()
    assert features.grad.shape == (num_voxels, 2)
    assert all(m.kernel.grad is not None for m in (same, down, up))
    assert bool(down.kernel.grad.any()) == bool(num_voxels)


def test_bad_clouds_and_kernels_are_refused(engine):
    where = cells([[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    with pytest.raises(ValueError, match="must be unique, got 3 rows in 2 voxels"):
        engine.make_tensor(torch.ones(3, 1), where)
    with pytest.raises(ValueError, match="as many rows, got 2 and 3"):
        engine.make_tensor(torch.ones(2, 1), where)
    with pytest.raises(ValueError, match="must be int32"):
        engine.make_tensor(torch.ones(3, 1), where.float())
    with pytest.raises(ValueError, match="must be floating"):
        engine.make_tensor(torch.ones(3, 1).int(), where)
    with pytest.raises(ValueError, match="1x1 convolution is Pointwise"):
        engine.Convolution(1, 1, kernel_size=1)
    with pytest.raises(ValueError, match="out_channels must be at least 1, got 0"):
        engine.Convolution(1, 0, kernel_size=3)


def test_self_check_names_the_engine(engine):
    assert engine.self_check().startswith(engine.NAME)


def test_default_engine_is_the_reference_where_it_imports():
    works = ENGINES.problem("minkowski") is None
    assert default_engine() == ("minkowski" if works else "native")
    with pytest.raises(ValueError, match="did you mean 'native'"):
        ENGINES.load("nativ")


def test_an_engine_compiled_for_the_cpu_is_not_taken_for_a_gpu(monkeypatch):
    problem = ENGINES.problem("minkowski")
    if problem:
        pytest.skip(problem)
    minkowski = ENGINES.load("minkowski")
    monkeypatch.setattr(minkowski.ME, "is_cuda_available", lambda: False)
    assert default_engine("cuda") == "native" and default_engine("cpu") == "minkowski"
    elsewhere = torch.ones(1, 1, device="meta"), cells([[0, 0, 0, 0]]).to("meta")
    with pytest.raises(ValueError, match="must be compiled with CUDA to run on meta, got one for"):
        minkowski.make_tensor(*elsewhere)
    monkeypatch.setattr(minkowski.ME, "is_cuda_available", lambda: True)
    assert default_engine("cuda:1") == "minkowski"

"""The network: SLidR's names, shapes and counts; tiny clouds; bad widths."""

import copy
from pathlib import Path

import pytest
import torch

from train.models.minkunet import BatchNorm, minkunet, minkunet34, minkunet_small

KEYS = Path(__file__).with_name("minkunet_keys.txt")  # of SLidR's released checkpoint


def count(network):
    return sum(p.numel() for p in network.parameters())


def cloud(num_rows, seed=0):
    random = torch.Generator().manual_seed(seed)
    where = torch.randint(-8, 9, (num_rows, 4), generator=random, dtype=torch.int32)
    where[:, 0] = where[:, 0].abs() % 2
    return torch.unique(where, dim=0) if num_rows else where


@pytest.mark.parametrize("engine", [None, "native"])
def test_minkunet34_has_the_names_and_shapes_of_slidr(engine):
    with torch.device("meta"):
        network = minkunet34(1, 64, engine=engine)
    expected = [line.split("\t") for line in KEYS.read_text().splitlines()]
    got = [
        [key, "x".join(map(str, value.shape)) or "scalar"]
        for key, value in network.state_dict().items()
    ]
    assert got == expected
    assert count(network) == 37_849_184


def test_parameter_counts_of_method_md():
    with torch.device("meta"):
        for outputs, total in ((17, 37_844_625), (20, 37_844_916)):
            network = minkunet34(1, outputs, engine="native")
            assert count(network) == total
            assert count(network) - count(network.final) == 37_842_976


def test_forward_is_encode_and_the_last_layer():
    where = cloud(200)
    features = torch.randn(len(where), 3)
    network = minkunet_small(3, 5, engine="native").eval()
    encoded = network.encode(features, where)
    assert encoded.shape == (len(where), network.backbone_channels)
    expected = encoded @ network.final.kernel + network.final.bias
    torch.testing.assert_close(network(features, where), expected)


def test_rows_follow_their_voxels():
    where = cloud(200)
    features = torch.randn(len(where), 1)
    order = torch.randperm(len(where))
    network = minkunet_small(1, 5, engine="native").eval()
    mixed = network(features[order], where[order])
    torch.testing.assert_close(mixed, network(features, where)[order], rtol=1e-4, atol=1e-5)


def test_scans_of_a_batch_do_not_see_each_other():
    where = cloud(300)
    features = torch.randn(len(where), 1)
    network = minkunet_small(1, 5, engine="native").eval()
    first = where[:, 0] == 0
    together = network(features, where)[first]
    torch.testing.assert_close(network(features[first], where[first]), together)


@pytest.mark.parametrize("num_rows", [0, 1])
def test_tiny_clouds_train(num_rows):
    where = cloud(num_rows)
    network = minkunet_small(1, 4)
    out = network(torch.ones(num_rows, 1), where)
    out.sum().backward()
    assert out.shape == (num_rows, 4) and out.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_momentum_reaches_the_outer_norms_only_unless_asked():
    def momenta(**options):
        network = minkunet_small(1, 2, engine="native", **options)
        norms = {k: m for k, m in network.named_modules() if isinstance(m, BatchNorm)}
        inner = {m.bn.momentum for k, m in norms.items() if ".norm" in k}
        return inner, {m.bn.momentum for k, m in norms.items() if ".norm" not in k}

    assert momenta(bn_momentum=0.02) == ({0.1}, {0.02})
    assert momenta(bn_momentum=0.02, block_bn_momentum=0.02) == ({0.02}, {0.02})


def test_a_copy_is_independent():
    where = cloud(100)
    network = minkunet_small(1, 2)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.final.bias.add_(1)
    apart = other.eval()(torch.ones(len(where), 1), where) - network.eval()(
        torch.ones(len(where), 1), where
    )
    torch.testing.assert_close(apart, torch.ones_like(apart))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="widths must be 9 integers of at least 1, got \\(8, 8\\)"):
        minkunet(1, 2, widths=(8, 8))
    with pytest.raises(ValueError, match="depths must be 8 integers of at least 1"):
        minkunet(1, 2, depths=(1, 1, 1, 0, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="out_channels must be at least 1, got 0"):
        minkunet(1, 0)
    with pytest.raises(ValueError, match="engine: unknown name 'spconv'"):
        minkunet(1, 2, engine="spconv")

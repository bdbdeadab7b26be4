import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from tests.train.small_runs import paths_of, small_recipe
from train import finetune
from train.batch import join_cells, make_cloud
from train.downstream import Downstream
from train.engines import native
from train.evaluate import evaluate
from train.finetune import calibrate_norms, labeled_cloud, train_downstream
from train.metrics import scores
from train.stores import Stores
from train.trainer import make_network

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = small_recipe()
GRID, K, TRAIN, VAL = RECIPE.voxels, 16, np.arange(4), np.arange(4, 8)


@pytest.fixture
def opened(stores):
    return Stores(paths_of(stores))


def network(seed=0):
    torch.manual_seed(seed)
    return make_network(RECIPE.network, "native")


def trunk(net):
    return {k: v.clone() for k, v in net.state_dict().items() if not k.startswith("final.")}


def is_same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def plain_clouds(stores, rows):
    empty = np.zeros(0, np.uint16)
    return [make_cloud(stores.points(row), empty, GRID) for row in rows.tolist()]


def test_a_probe_trains_the_last_layer_alone(opened):
    net = network()
    before = trunk(net)
    train_downstream(net, opened, TRAIN, K, GRID, Downstream(epochs=2, batch_size=2))
    assert is_same(before, trunk(net))
    assert (net.final.kernel.shape[-1], net.out_channels) == (K, K)
    assert not net.training


def test_a_probe_learns_to_tell_classes_apart(opened):
    config = Downstream(epochs=25, batch_size=1, lr=0.2, feature_passes=1, max_voxels=1500)
    net = train_downstream(network(), opened, TRAIN, K, GRID, config)
    learned = scores(evaluate(net, opened, TRAIN, K, GRID).points).miou
    chance = train_downstream(network(), opened, TRAIN, K, GRID, Downstream(epochs=1, lr=1e-9))
    assert learned > scores(evaluate(chance, opened, TRAIN, K, GRID).points).miou + 5


def test_kept_features_are_those_of_the_first_passes(opened, monkeypatch):
    passes = []
    compute = finetune._frozen_features
    monkeypatch.setattr(
        finetune,
        "_frozen_features",
        lambda task, epoch: passes.append(epoch) or compute(task, epoch),
    )
    every = Downstream(epochs=3, batch_size=4)
    train_downstream(network(), opened, TRAIN, K, GRID, every)
    assert passes == [0, 1, 2]
    passes.clear()
    kept = Downstream(epochs=3, batch_size=4, feature_passes=2)
    train_downstream(network(), opened, TRAIN, K, GRID, kept)
    assert passes == [0, 1]


def test_one_batch_of_kept_features_equals_computing_them(opened):
    """With all frames in one batch their order does not matter, so one epoch is the same step."""
    results = []
    for passes in (None, 1):
        config = Downstream(epochs=1, batch_size=4, feature_passes=passes)
        results.append(train_downstream(network(), opened, TRAIN, K, GRID, config).final.kernel)
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)  # the order of a float32 sum


def test_fewer_voxels_are_drawn_from_the_labeled_ones(opened):
    config = Downstream(max_voxels=200)
    task = finetune._Task(network().eval(), opened, TRAIN, GRID, config, "cpu")
    for features, labels in finetune._frozen_features(task, 0):
        assert features.shape == (200, 8) and features.dtype == torch.float16
        assert (labels < K).all()


def test_fine_tuning_changes_every_layer_and_the_statistics(opened):
    net = network()
    before = trunk(net)
    config = Downstream(freeze=False, epochs=1, batch_size=2, lr=0.05, head_lr=0.5)
    train_downstream(net, opened, TRAIN, K, GRID, config)
    after = trunk(net)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert set(changed) == set(before)


@pytest.mark.parametrize(
    ("settings", "inner"), [({}, 0.1), ({"block_bn_momentum": 0.02}, 0.02)], ids=str
)
def test_the_protocols_momentum_stays_outside_the_residual_blocks(opened, settings, inner):
    net = network()
    config = Downstream(freeze=False, epochs=1, batch_size=4, bn_momentum=0.03, **settings)
    train_downstream(net, opened, TRAIN[:1], K, GRID, config)
    norms = {k: m for k, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm1d)}
    assert {m.momentum for k, m in norms.items() if ".norm" in k} == {inner}
    assert {m.momentum for k, m in norms.items() if ".norm" not in k} == {0.03}


def test_the_last_layer_may_have_its_own_rate(opened):
    moved = []
    for head_lr in (None, 1e-9):
        net = network()
        config = Downstream(freeze=False, epochs=1, batch_size=4, lr=0.05, head_lr=head_lr)
        torch.manual_seed(config.seed)
        first = torch.nn.Module()
        first.final = finetune.Pointwise(net.backbone_channels, K, bias=True)
        train_downstream(net, opened, TRAIN, K, GRID, config)
        moved.append((net.final.kernel - first.final.kernel).abs().max().item())
    assert moved[0] > 1e-3 and moved[1] < 1e-6


def test_the_same_seed_gives_the_same_network(opened):
    config = Downstream(freeze=False, epochs=1, batch_size=2)
    one, two = (train_downstream(network(), opened, TRAIN, K, GRID, config) for _ in range(2))
    assert is_same(one.state_dict(), two.state_dict())


def test_calibration_takes_the_statistics_of_the_scans(opened):
    net = network()
    weights = [p.clone() for p in net.parameters()]
    momentum = net.bn0.bn.momentum
    calibrate_norms(net, opened, TRAIN, GRID, 0, "cpu")
    means, variances = [], []
    with torch.no_grad():
        for cloud in plain_clouds(opened, TRAIN):
            tensor = net.conv0p1s1(native.make_tensor(*join_cells([cloud])))
            means.append(tensor.features.mean(0))
            variances.append(tensor.features.var(0))
    norm = net.bn0.bn
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        norm.running_var, torch.stack(variances).mean(0), atol=1e-4, rtol=1e-3
    )
    assert norm.momentum == momentum
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))
    assert not net.training


def test_evaluation_counts_every_point_by_its_own_voxel(opened):
    net = network().eval()
    net.final = finetune.Pointwise(net.backbone_channels, K, bias=True)
    matrix = evaluate(net, opened, VAL, K, GRID).points
    expected = np.zeros((K, K), np.int64)
    for row in VAL.tolist():
        points, labels = opened.points(row), opened.labels(row)
        cells = np.floor(points[:, :3].astype(np.float64) / GRID.size_m).astype(int)
        [cloud] = plain_clouds(opened, np.array([row]))
        with torch.no_grad():
            classes = net(*join_cells([cloud])).argmax(1).numpy()
        of_cell = {tuple(c): k for c, k in zip(cloud.cells.tolist(), classes, strict=True)}
        for cell, label in zip(cells.tolist(), labels.tolist(), strict=True):
            if label != 255:
                expected[label, of_cell[tuple(cell)]] += 1
    np.testing.assert_array_equal(matrix.numpy(), expected)


def test_a_voxel_has_the_label_of_its_first_point(opened):
    cloud, labels = labeled_cloud(opened, 1, GRID, np.random.default_rng(0))
    truth = opened.labels(1)
    seen = {}
    for point, voxel in enumerate(cloud.voxel_idx.tolist()):
        seen.setdefault(voxel, truth[point])
    assert labels.tolist() == [seen[voxel] for voxel in range(len(cloud.cells))]


@pytest.mark.parametrize("field", ["epochs", "batch_size", "feature_passes", "max_voxels"])
def test_numbers_that_train_nothing_are_refused(field):
    with pytest.raises(UserError, match=f"{field}: must be at least 1, got 0"):
        Downstream(**{field: 0})


def test_a_loss_that_is_not_finite_stops_with_one_line(opened):
    net = network()
    with torch.no_grad():
        net.conv0p1s1.kernel.fill_(float("nan"))
    with pytest.raises(UserError, match="must be finite, got nan; lower lr"):
        train_downstream(net, opened, TRAIN, K, GRID, Downstream(epochs=1))

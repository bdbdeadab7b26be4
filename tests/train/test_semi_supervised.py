import copy

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from tests.train.small_runs import paths_of, small_recipe
from train.downstream import Downstream, MeanTeacher
from train.finetune import train_downstream
from train.semi_supervised import pseudo_labels, update_teacher
from train.stores import Stores
from train.trainer import make_network

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = small_recipe()
K = 16


def network(seed=0):
    torch.manual_seed(seed)
    return make_network(RECIPE.network, "native")


def trained(stores, unlabeled, **settings):
    config = Downstream(
        freeze=False, epochs=2, batch_size=1, lr=0.05, mean_teacher=MeanTeacher(**settings)
    )
    opened = Stores(paths_of(stores))
    read, points = [], opened.labels
    opened.labels = lambda row: read.append(row) or points(row)
    rows = np.array([0])
    net = train_downstream(network(), opened, rows, K, RECIPE.voxels, config, unlabeled=unlabeled)
    return net, read


def test_pseudo_labels_by_hand():
    logits = torch.tensor([[0.0, 4.0], [0.0, 0.1], [3.0, 0.0]])  # 0.982, 0.525, 0.953
    assert pseudo_labels(logits, 0.9).tolist() == [1, 255, 0]
    assert pseudo_labels(logits, 0.96).tolist() == [1, 255, 255]
    assert pseudo_labels(logits, 0.0).tolist() == [1, 1, 0]


def test_the_teacher_is_a_running_mean_with_the_networks_statistics():
    net = network(0)
    teacher = copy.deepcopy(net)
    with torch.no_grad():
        teacher.final.bias.fill_(2.0)
        net.final.bias.fill_(10.0)
        net.bn0.bn.running_mean.fill_(5.0)
    update_teacher(teacher, net, 0.75)
    assert (teacher.final.bias == 4).all()
    assert (teacher.bn0.bn.running_mean == 5).all()


def test_unlabeled_scans_change_the_result_and_their_labels_are_never_read(stores):
    plain, _ = trained(stores, np.array([1, 2]))
    mixed, read = trained(stores, np.array([1, 2]), mix_weight=1.0, confidence=0.0)
    agreed, _ = trained(stores, np.array([1, 2]), consistency_weight=5.0)
    assert set(read) == {0}
    kernels = [net.final.kernel for net in (plain, mixed, agreed)]
    assert not torch.equal(kernels[0], kernels[1]) and not torch.equal(kernels[0], kernels[2])
    assert not mixed.training and all(torch.isfinite(k).all() for k in kernels)
    again, _ = trained(stores, np.array([1, 2]), mix_weight=1.0, confidence=0.0)
    assert torch.equal(again.final.kernel, kernels[1])


def test_a_linear_probe_has_no_mean_teacher():
    with pytest.raises(UserError, match="mean_teacher: must be off where only the last layer"):
        Downstream(mean_teacher=MeanTeacher(mix_weight=1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mix_weight": -1.0}, "mean_teacher: weights must be >= 0"),
        ({"confidence": 1.5}, "mean_teacher.confidence: must be in 0 .. 1, got 1.5"),
        ({"areas": (3, 1)}, r"mean_teacher.areas: must be numbers of at least 2, got \(3, 1\)"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        MeanTeacher(**settings)

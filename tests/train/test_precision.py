import pytest
import torch

from pipeline.errors import UserError
from tests.train.small_runs import paths_of, small_recipe
from train.loader import epoch_batches
from train.precision import Precision, check_precision, make_scaler
from train.training import Machine, Training

pytestmark = pytest.mark.usefixtures("one_thread")


def first_step(stores, *settings):
    recipe = small_recipe("batch_size=1", *settings)
    [batch] = list(epoch_batches(paths_of(stores), recipe, torch.tensor([1]).numpy(), 0, 0))
    training = Training(recipe, Machine("native"))
    training.start_epoch(0)
    terms = training.losses(batch)
    assert all(term.value.dtype == torch.float32 for term in terms.values())
    encoded = training.encode_batch(batch)
    return training.step(batch), encoded


def test_each_branch_has_its_format_and_the_losses_stay_float32(stores):
    exact, full = first_step(stores)
    both = ("precision.images=bfloat16", "precision.points=bfloat16")
    found, half = first_step(stores, *both)
    assert full.feature_map.dtype == torch.float32
    assert half.feature_map.dtype == half.teacher_map.dtype == torch.bfloat16
    assert half.points[0].dtype == torch.float32  # normalized after the network
    assert set(found) == set(exact)
    for name, value in exact.items():
        assert found[name] == pytest.approx(value, rel=0.03)
        assert found[name] != value
    one, _ = first_step(stores, "precision.images=bfloat16")
    assert one["temporal_nce"] == exact["temporal_nce"] != found["temporal_nce"]


def test_float16_has_a_scaler_and_the_others_none():
    assert make_scaler(Precision(images="float16"), "cpu").is_enabled()
    assert make_scaler(Precision(points="float16"), "cpu").is_enabled()
    assert not make_scaler(Precision(images="bfloat16"), "cpu").is_enabled()


def test_minkowski_computes_in_float32():
    check_precision(Precision(images="float16"), "minkowski")
    with pytest.raises(UserError, match="precision.points: must be float32 .* minkowski, got bf"):
        check_precision(Precision(points="bfloat16"), "minkowski")

from dataclasses import replace

import pytest

from pipeline.config import override, to_plain
from pipeline.errors import UserError
from train.optimizer import scaled_lr
from train.recipes import RECIPES, TINY_TEACHER, find_weights, load_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_complete_and_carries_its_name(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert to_plain(recipe)["losses"]["superpixel_nce"]["temperature"] == 0.07


def test_published_numbers():
    seal, slidr = load_recipe("seal"), load_recipe("slidr")
    assert (seal.optimizer.lr, seal.optimizer.dampening, seal.epochs) == (0.5, 0.1, 50)
    assert (seal.voxels.kind, seal.voxels.size_m, seal.network.bn_momentum) == (
        "cylindrical", 0.1, 0.05)  # fmt: skip
    assert (slidr.losses.temporal_weight, slidr.losses.segment_weight) == (0, 0)
    assert (slidr.losses.superpixel_weight, slidr.optimizer) == (1, seal.optimizer)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs=0", "epochs: must be at least 1, got 0"),
        ("batch_size=-1", "batch_size: must be at least 1"),
        ("losses.superpixel_weight=-1", "weights must be >= 0"),
        ("voxels.kind=cubic", "cylindrical, cartesian"),
        ("optimiser.lr=1", "did you mean 'optimizer'"),
        ("optimizer.lr=fast", "must be float"),
        ("teacher.kind=vit", "teacher.kind: must be"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        override(load_recipe("seal"), [setting])


def test_a_run_without_any_loss_is_refused():
    with pytest.raises(UserError, match="one above 0"):
        override(load_recipe("slidr"), ["losses.superpixel_weight=0"])


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'seal_small'"):
        load_recipe("seal_smal")


def test_shipped_weights_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_weights("nowhere/x.pt").as_posix() == "nowhere/x.pt"
    (tmp_path / "weights").mkdir()
    (tmp_path / TINY_TEACHER).touch()
    assert find_weights(TINY_TEACHER).resolve() == tmp_path / TINY_TEACHER
    assert find_weights("train/recipes.py").is_file()


@pytest.mark.parametrize("name", RECIPES)
def test_what_show_prints_gives_the_same_recipe_again(name):
    from train.__main__ import _lines

    recipe = load_recipe(name)
    other = replace(load_recipe("seal_small"), name="x")
    assert override(other, _lines(to_plain(recipe))) == recipe


def test_published_numbers_of_the_other_methods():
    ppkt, st_slidr, scalr = (load_recipe(name) for name in ("ppkt", "st_slidr", "scalr"))
    assert (ppkt.losses.ppkt.num_pairs, ppkt.teacher.kind) == (4096, "resnet50_stride32")
    assert (st_slidr.losses.st_slidr.spared, st_slidr.losses.st_slidr.similar) == (0.01, 0.5)
    assert (scalr.optimizer.kind, scalr.optimizer.lr, scalr.epochs) == ("adamw", 2e-3, 25)
    assert scalr.network.out_channels == 768 and scalr.losses.weights == {"cosine": 1.0}
    slidr, dinov2 = load_recipe("slidr"), load_recipe("seal_dinov2")
    assert (ppkt.optimizer, ppkt.epochs, st_slidr.epochs) == (slidr.optimizer, 50, 50)
    assert (st_slidr.optimizer.lr, st_slidr.batch_size) == (0.5, 16)
    assert (dinov2.optimizer.lr, dinov2.batch_size, dinov2.epochs) == (0.01, 32, 100)
    for recipe in (ppkt, st_slidr, scalr, dinov2):
        scaled = replace(recipe.optimizer, lr_scaling="linear")  # changes nothing at its own batch
        assert scaled_lr(scaled, recipe.batch_size) == recipe.optimizer.lr


@pytest.mark.parametrize("name", ["seal_dinov2", "scalr"])
def test_images_of_a_vit_recipe_are_whole_patches(name):
    recipe = load_recipe(name)
    assert recipe.augment.height % 14 == recipe.augment.width % 14 == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("losses.superpixel_nce.temperature=0", "superpixel_nce.temperature: must be above 0"),
        ("losses.temporal_nce.temperature=-1", "temporal_nce.temperature: must be above 0"),
        ("losses.point_to_segment.temperature=0", "point_to_segment.temperature: must be above"),
        ("losses.ppkt.temperature=0", "ppkt.temperature: must be above 0"),
        ("losses.st_slidr.temperature=0", "st_slidr.temperature: must be above 0"),
        ("losses.temporal_nce.max_points=0", "temporal_nce.max_points: must be at least 1, got 0"),
        ("losses.temporal_nce.anchor=pints", "must be one of points, means, got 'pints'"),
        ("augment.height=0", r"height and width must be at least 1, got \(0, 416\)"),
        ("augment.min_area=0", "augment.min_area: must be in 0 .. 1, got 0.0"),
        ("augment.aspect=2,1", "augment.aspect: must be two rising numbers"),
        ("augment.cuboid=-1", "augment.cuboid: must be at least 0, got -1.0"),
        ("network.out_channels=0", "out_channels must be at least 1, got 0"),
        ("network.in_channels=4", "in_channels must be 1 .intensity., got 4"),
        ("network.bn_momentum=2", "bn_momentum must be in 0 .. 1, got 2.0"),
        ("losses.temporal_weight=nan", "weights must be >= 0 and one above 0"),
        ("optimizer.lr=inf", "optimizer.lr: must be above 0 and finite, got inf"),
        ("optimizer.momentum=-1", "optimizer.momentum: must be in 0 .. 1, got -1.0"),
        ("optimizer.dampening=2", "optimizer.dampening: must be in 0 .. 1, got 2.0"),
        (
            "optimizer.weight_decay=-1",
            "optimizer.weight_decay: must be at least 0 and finite, got -1.0",
        ),
    ],
)
def test_a_number_that_cannot_train_is_refused_before_a_run_begins(setting, message):
    with pytest.raises(UserError, match=message):
        override(load_recipe("seal"), [setting])

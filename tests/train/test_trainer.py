import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from tests.train.small_runs import paths_of, small_recipe
from train.checkpoint import load_checkpoint
from train.loader import epoch_batches
from train.run_folder import METRICS, read_metrics
from train.trainer import Machine, Training, pretrain

pytestmark = pytest.mark.usefixtures("one_thread")
NATIVE = Machine("native")
PARTS = {"superpixel_nce", "temporal_nce", "point_to_segment"}


def losses(folder, name="loss"):
    return [line[name] for line in read_metrics(folder)]


def assert_same_run(one, other):
    assert (one / METRICS).read_bytes() == (other / METRICS).read_bytes()
    contents = [load_checkpoint(folder / "checkpoint.pt") for folder in (one, other)]
    for part in ("network", "head"):
        for name, value in contents[0][part].items():
            assert torch.equal(value, contents[1][part][name]), name
    assert torch.equal(contents[0]["generator"], contents[1]["generator"])


def test_the_losses_of_a_few_frames_fall_and_are_logged_apart(stores, tmp_path):
    recipe = small_recipe("batch_size=4", "epochs=7", "optimizer.lr=0.1", "augment.cuboid=0")
    checkpoint = pretrain(tmp_path / "run", paths_of(stores), recipe, NATIVE)
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(7))
    for line in lines:
        assert set(line) == {"epoch", "step", "lr", "loss", "fallbacks"} | PARTS
        assert line["loss"] == pytest.approx(sum(line[name] for name in PARTS), rel=1e-5)
    for name in ("loss", *PARTS):
        assert sum(losses(tmp_path / "run", name)[-3:]) < sum(losses(tmp_path / "run", name)[:3])
    assert lines[0]["lr"] == 0.1 and 0 < lines[-1]["lr"] < 0.02
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    assert load_checkpoint(checkpoint)["next_epoch"] == 7


def test_a_run_resumed_after_a_kill_equals_one_in_one_go(stores, tmp_path, monkeypatch):
    recipe, paths = small_recipe("epochs=3"), paths_of(stores)
    pretrain(tmp_path / "whole", paths, recipe, NATIVE)
    step, seen = Training.step, []

    def killed(self, batch):
        seen.append(1)
        if len(seen) == 4:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Training, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tmp_path / "cut", paths, recipe, NATIVE)
    assert len(read_metrics(tmp_path / "cut")) == 3
    monkeypatch.undo()
    torch.manual_seed(77)  # nothing may hang on torch's own generator
    pretrain(tmp_path / "cut", paths, recipe, NATIVE)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert len(losses(tmp_path / "cut")) == 6


def test_a_finished_run_is_left_alone_and_another_config_refused(stores, tmp_path, monkeypatch):
    recipe, paths = small_recipe("epochs=1", "batch_size=4"), paths_of(stores)
    pretrain(tmp_path / "run", paths, recipe, NATIVE)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    monkeypatch.setattr(Training, "step", None)
    pretrain(tmp_path / "run", paths, recipe, NATIVE)
    with pytest.raises(UserError, match=r"another config \(recipe.seed: 0 -> 1\)"):
        pretrain(tmp_path / "run", paths, replace(recipe, seed=1), NATIVE)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    # the folder's config is gone, the checkpoint of another run is still there
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(UserError, match=r"checkpoint.pt: checkpoint must be of this run.*seed: 0"):
        pretrain(tmp_path / "run", paths, replace(recipe, seed=1), NATIVE)


def batches(stores, recipe):
    return list(epoch_batches(paths_of(stores), recipe, np.arange(4), 0, 0))


def test_a_weight_of_0_leaves_the_loss_and_its_frame_out(stores, monkeypatch):
    recipe = small_recipe(name="slidr_small")
    training, encoded = Training(recipe, NATIVE), []
    encode = training.encode
    monkeypatch.setattr(training, "encode", lambda c: encoded.append(c) or encode(c))
    [batch, _] = batches(stores, recipe)
    training.start_epoch(0)
    assert set(training.step(batch)) == {"loss", "superpixel_nce"}
    assert len(encoded) == 1
    recipe = small_recipe("losses.superpixel_weight=0", "losses.temporal_weight=0.5")
    training = Training(recipe, NATIVE)
    monkeypatch.setattr(training, "teacher", None)
    training.start_epoch(0)
    parts = training.step(batches(stores, recipe)[0])
    assert parts["loss"] == pytest.approx(0.5 * parts["temporal_nce"] + parts["point_to_segment"])


def test_a_batch_without_successors_has_no_temporal_part(stores):
    recipe = small_recipe("losses.superpixel_weight=0", "losses.segment_weight=0")
    training = Training(recipe, NATIVE)
    training.start_epoch(0)
    [batch, _] = batches(stores, recipe)
    assert training.step(replace(batch, frames=batch.frames[:1])) == {"loss": 0.0}


def test_the_teacher_stays_as_it_is_and_all_else_learns(stores):
    recipe = small_recipe()
    training = Training(recipe, NATIVE)
    teacher = {name: value.clone() for name, value in training.teacher.state_dict().items()}
    before = [p.clone() for p in (*training.network.parameters(), *training.head.parameters())]
    training.start_epoch(0)
    training.step(batches(stores, recipe)[0])
    for name, value in training.teacher.state_dict().items():
        assert torch.equal(value, teacher[name])
    after = (*training.network.parameters(), *training.head.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_learning_rate_is_a_cosine_over_the_epochs():
    training = Training(small_recipe("epochs=4", "optimizer.lr=0.8"), NATIVE)
    rates = []
    for epoch in range(4):
        training.start_epoch(epoch)
        rates.append(training.lr)
    assert rates == pytest.approx([0.8, 0.682843, 0.4, 0.117157], abs=1e-6)


def test_a_loss_that_is_not_finite_stops_with_one_line(stores):
    training = Training(small_recipe(), NATIVE)
    with torch.no_grad():
        training.network.final.kernel.fill_(float("nan"))
    training.start_epoch(0)
    with pytest.raises(UserError, match="the loss must be finite, got nan; lower optimizer.lr"):
        training.step(batches(stores, small_recipe())[0])


def test_another_teacher_file_is_another_run(stores, tmp_path):
    from safetensors.torch import save_file

    from train.models.tiny_network import TinyNetwork

    path = tmp_path / "teacher.safetensors"
    save_file(TinyNetwork().state_dict(), path)
    recipe = small_recipe("epochs=1", f"teacher.weights={path}", "batch_size=4")
    pretrain(tmp_path / "run", paths_of(stores), recipe, NATIVE)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert len(config["teacher_hash"]) == 16
    torch.manual_seed(99)
    save_file(TinyNetwork().state_dict(), path)
    with pytest.raises(UserError, match="another config .*teacher_hash"):
        pretrain(tmp_path / "run", paths_of(stores), recipe, NATIVE)

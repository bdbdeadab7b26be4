"""Pretraining steps of the full network on real frames: the losses fall on a batch seen again.

The teacher is the tiny one that ships: ResNet-50 takes 8 s per 224 x 416 image on two busy cores,
so about a minute per step of six cameras, and what it computes is tested in tests/train/models.
"""

import json
import os
import subprocess
import sys

import pytest

from pipeline.__main__ import main
from tests.conftest import REPOSITORY
from tests.pipeline.recordings import recording

# what a user's process does: __main__ sets the threads before torch comes in
PROGRAM = """
import json, sys
import train.__main__
from pathlib import Path
from pipeline.config import override
from train.engines.table import default_engine
from train.loader import epoch_batches, pretrain_stages
from train.recipes import TINY_TEACHER, load_recipe
from train.rows import choose_pairs
from train.stores import StorePaths, Stores
from train.trainer import Machine, Training, set_threads

if __name__ == "__main__":
    folder, name, num_steps, lr = sys.argv[1:]
    set_threads()
    settings = ["teacher.kind=tiny", f"teacher.weights={TINY_TEACHER}", f"optimizer.lr={lr}"]
    recipe = override(load_recipe(name), settings)
    paths = StorePaths(Path(folder), "slic")
    rows = choose_pairs(Stores(paths), "train", pretrain_stages(recipe), name == "seal")
    [batch] = epoch_batches(paths, recipe, rows[:1], 0, 0)
    training = Training(recipe, Machine(default_engine()))
    training.start_epoch(0)
    parameters = sum(p.numel() for p in training.network.parameters())
    steps = [training.step(batch) for _ in range(int(num_steps))]
    print(json.dumps({"rows": rows.tolist(), "parameters": parameters, "steps": steps}))
"""


def stage_one(stores, dataset, root, *stages):
    for stage in stages:
        arguments = ["run", "--dataset", dataset, "--root", root, "--stores", stores]
        arguments += ["--source", "slic", "--stage", stage]
        main([str(a) for a in arguments], standalone_mode=False)


def overfit(folder, recipe, num_steps, lr):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, recipe, str(num_steps), str(lr)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.slow
@pytest.mark.data
def test_superpixel_contrast_on_the_real_nuscenes_keyframe(tmp_path):
    root = recording("nuscenes")
    stage_one(tmp_path, "nuscenes", root, "frames", "superpixels", "projections")
    found, _ = overfit(tmp_path / "nuscenes-v1.0-mini", "slidr", 6, 0.02)
    losses = [step["superpixel_nce"] for step in found["steps"]]
    assert found["parameters"] == 37_849_184
    assert losses[-1] < losses[0] - 0.5, losses  # 6.60 to 5.34


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(1200)
def test_all_three_losses_on_real_kitti(tmp_path):
    root = recording("semantickitti")
    stages = ("frames", "superpixels", "projections", "segments")
    stage_one(tmp_path, "semantickitti", root, *stages)
    found, said = overfit(tmp_path / "semantickitti", "seal", 4, 0.05)
    assert found["rows"] == [0, 1, 2, 3, 4, 5]  # 6 to 9 have no image
    assert "4 of 10 frames left out: frame 6: no image" in said
    for name in ("loss", "superpixel_nce", "temporal_nce", "point_to_segment"):
        losses = [step[name] for step in found["steps"]]
        assert losses[-1] < losses[0], (name, losses)

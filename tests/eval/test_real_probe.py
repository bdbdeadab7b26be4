"""The linear probe by command on real KITTI scans: one sequence stands for training and validation.

Probed on what it was fitted to, so the figure says that labels, points and classes go together,
nothing about what a network is worth.
"""

import json

import pytest

from tests.pipeline.recordings import recording


@pytest.mark.slow
@pytest.mark.data
def test_real_kitti_is_probed(command, tmp_path):
    sequence = recording("semantickitti") / "sequences" / "00"
    root = tmp_path / "kitti"
    for name in ("00", "08"):  # 08 is validation
        link = root / "sequences" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(sequence.resolve())
    data = ("--dataset", "semantickitti", "--stores", tmp_path / "stores")
    done = command("pipeline", "run", *data, "--root", root, "--stage", "frames")
    assert done.code == 0, done.err
    settings = ("epochs=10", "batch_size=2", "lr=2", "calibrate=true")
    done = command(
        *("eval", "probe", *data, "--runs", tmp_path / "runs", "--recipe", "seal_small"),
        *("--init", "random", *(word for each in settings for word in ("--set", each))),
    )
    assert done.code == 0, done.err
    result = json.loads(open(done.out.splitlines()[-1]).read())
    assert (result["num_train"], result["num_val"]) == (10, 10)
    by_class = dict(zip(result["classes"], result["per_class_iou"][0], strict=True))
    assert len(by_class) == 19 and result["num_absent"] > 0  # no bus, no motorcyclist in ten scans
    assert result["miou"][0] > 10 and by_class["road"] > 50, by_class

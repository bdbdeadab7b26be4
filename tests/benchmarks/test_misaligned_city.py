import json

import numpy as np
import pytest

from benchmarks.misaligned_city import later_pose, misalign, turned
from pipeline.errors import UserError


def test_a_pose_between_and_after_by_hand():
    poses = [
        {"timestamp": 0, "translation": [0, 0, 0], "rotation": [1, 0, 0, 0]},
        {"timestamp": 100, "translation": [2, 0, 0], "rotation": [-1, 0, 0, 0]},
    ]
    assert later_pose(poses, 50)["translation"] == [1, 0, 0]
    assert later_pose(poses, 50)["rotation"] == [1, 0, 0, 0]  # q and -q are one rotation
    assert later_pose(poses, 150)["translation"] == [3, 0, 0]


def test_a_quarter_turn_by_hand():
    """Turning the identity by 90 degrees about z."""
    assert turned([1, 0, 0, 0], 90) == pytest.approx([0.5**0.5, 0, 0, 0.5**0.5])
    once = turned([0.5, 0.5, -0.5, 0.5], 30)
    assert turned(once, -30) == pytest.approx([0.5, 0.5, -0.5, 0.5])


def test_only_cameras_move(city, tmp_path):
    misalign(city, tmp_path / "late", 100, 0)
    misalign(city, tmp_path / "same", 0, 0)

    def poses(root):
        read = {n: json.loads((root / "v1.0-mini" / f"{n}.json").read_text()) for n in
                ("sample_data", "ego_pose")}  # fmt: skip
        by_token = {p["token"]: p["translation"] for p in read["ego_pose"]}
        return {s["filename"]: by_token[s["ego_pose_token"]] for s in read["sample_data"]}

    before, late, same = poses(city), poses(tmp_path / "late"), poses(tmp_path / "same")
    for name, place in before.items():
        moved_m = np.linalg.norm(np.subtract(late[name], place))
        assert (moved_m > 0.2) == ("CAM" in name)  # 100 ms at more than 2 m/s
        assert same[name] == pytest.approx(place, abs=1e-6)
        assert (tmp_path / "late" / name).is_file()
    with pytest.raises(UserError, match="late: must not exist yet"):
        misalign(city, tmp_path / "late", 0, 0)
    with pytest.raises(UserError, match="must be a city with v1.0-mini"):
        misalign(tmp_path, tmp_path / "x", 0, 0)

"""A city whose cameras and LiDAR do not fit: what the temporal branch should be robust to.

    make synthetic SIZE=demo
    python -m benchmarks.misaligned_city --root data/city-demo-0 --out data/city-late --delay-ms 100
    python -m benchmarks.misaligned_city --root data/city-demo-0 --out data/city-turned --yaw-deg 1
    make superpixels DATASET=synthetic ROOT=data/city-late STORES=stores-late
    make pretrain STORES=stores-late RUN=late-seal  RECIPE=seal_small
    make pretrain STORES=stores-late RUN=late-slidr RECIPE=slidr_small      # without L_tmp, L_p2s
    make probe ... and make robustness ... of both; the same on the city as it is

`python -m benchmarks.city_timing` does all of that, for both shifts, four sets of losses and three
seeds.

Recordings are linked, not copied; only tables change. A delay moves each camera's ego pose to where
the car was that much later, as a clock that runs behind would; images, and so masks, stay. A yaw
turns every camera's mount about the vertical.
"""

import argparse
import json
import math
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.steps import run_tool
from pipeline.errors import check
from pipeline.files import write_atomically

TABLES = "v1.0-mini"
Record = dict[str, Any]


def later_pose(poses: list[Record], time_us: int) -> Record:
    """Return translation and rotation of the ego at a time, between its two nearest poses.

    Args:
        poses: of one scene, sorted by timestamp, two or more of different times.
        time_us: outside their span the last two are extended.
    """
    times = [pose["timestamp"] for pose in poses]
    after = min(max(bisect_left(times, time_us), 1), len(times) - 1)
    before = after - 1
    while before > 0 and times[before] == times[after]:
        before -= 1
    share = (time_us - times[before]) / (times[after] - times[before])
    a, b = poses[before], poses[after]
    ends = zip(a["translation"], b["translation"], strict=True)
    place = [(1 - share) * p + share * q for p, q in ends]
    one, other = np.array(a["rotation"]), np.array(b["rotation"])
    mixed = (1 - share) * one + share * (other if one @ other >= 0 else -other)
    return {"translation": place, "rotation": (mixed / np.linalg.norm(mixed)).tolist()}


def turned(rotation: list[float], yaw_deg: float) -> list[float]:
    """Return a quaternion wxyz turned about the ego's vertical axis."""
    half = math.radians(yaw_deg) / 2
    w, x, y, z = rotation
    c, s = math.cos(half), math.sin(half)
    return [c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w]


def misalign(root: Path, out: Path, delay_ms: float, yaw_deg: float) -> None:
    """Write a city beside another one, with other tables and links to the same recordings.

    Raises:
        UserError: no city there, or something stands at `out`.
    """
    tables = root / TABLES
    check(tables.is_dir(), f"{root}: must be a city with {TABLES}, got none; make synthetic")
    check(not out.exists(), f"{out}: must not exist yet; choose another --out, or remove it")
    read = {path.stem: json.loads(path.read_text()) for path in tables.glob("*.json")}
    channels = {sensor["token"]: sensor["channel"] for sensor in read["sensor"]}
    scenes = {sample["token"]: sample["scene_token"] for sample in read["sample"]}
    mounts = {m["token"]: m for m in read["calibrated_sensor"]}
    camera_mounts = {t for t, m in mounts.items() if channels[m["sensor_token"]].startswith("CAM")}
    for token in camera_mounts:
        mounts[token]["rotation"] = turned(mounts[token]["rotation"], yaw_deg)
    poses = {pose["token"]: pose for pose in read["ego_pose"]}
    by_scene: dict[str, list[Record]] = {}
    for shot in read["sample_data"]:
        by_scene.setdefault(scenes[shot["sample_token"]], []).append(poses[shot["ego_pose_token"]])
    moved = {}
    for scene_poses in by_scene.values():
        scene_poses.sort(key=lambda pose: pose["timestamp"])
    for shot in read["sample_data"]:
        if shot["calibrated_sensor_token"] in camera_mounts:
            time_us = shot["timestamp"] + round(1000 * delay_ms)
            found = later_pose(by_scene[scenes[shot["sample_token"]]], time_us)
            moved[shot["ego_pose_token"]] = found
    read["ego_pose"] = [pose | moved.get(pose["token"], {}) for pose in read["ego_pose"]]
    for name, content in read.items():
        write_atomically(out / TABLES / f"{name}.json", json.dumps(content).encode())
    for path in root.iterdir():
        if path.name != TABLES:
            (out / path.name).symlink_to(path.resolve())


def main() -> None:
    """Write one city."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--yaw-deg", type=float, default=0.0)
    options = parser.parse_args()
    misalign(options.root, options.out, options.delay_ms, options.yaw_deg)
    print(options.out)


if __name__ == "__main__":
    run_tool(main)

"""Projection of one keyframe into six cameras beside the devkit's chain, in turns, one thread each.

    python -m benchmarks.projection [--rounds 30]

The chain is that of `NuScenesExplorer.map_pointcloud_to_image`: LidarPointCloud, four rotations and
translations through both ego poses, view_points, the mask. Neither side reads files: both start
from the scan in memory. The scan is the real keyframe of SELKIE_DATA, or one of the made-up city
with as many rays. The devkit runs in its own environment (benchmarks/peers.py) and measures
itself; the two are let run one after the other, never at once.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np  # noqa: E402

from benchmarks.peers import DEVKIT, Peer  # noqa: E402
from benchmarks.recordings import nuscenes_root  # noqa: E402
from pipeline.datasets import nuscenes  # noqa: E402
from pipeline.index_table import to_frames
from pipeline.manifest import load_manifest  # noqa: E402
from pipeline.projection import project  # noqa: E402
from pipeline.splits import split_names
from pipeline.types import Frame  # noqa: E402

SCRIPT = """
import sys, time
import numpy as np
from pyquaternion import Quaternion
from nuscenes import NuScenes
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import view_points

nusc = NuScenes("v1.0-mini", sys.argv[1], verbose=False)
sample = nusc.sample[0]
scan = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
points = LidarPointCloud.from_file(f"{nusc.dataroot}/{scan['filename']}").points

def steps(shot):
    mount = nusc.get("calibrated_sensor", shot["calibrated_sensor_token"])
    return mount, nusc.get("ego_pose", shot["ego_pose_token"])

def project(camera):
    cloud = LidarPointCloud(points.copy())
    mount, pose = steps(scan)
    cloud.rotate(Quaternion(mount["rotation"]).rotation_matrix)
    cloud.translate(np.array(mount["translation"]))
    cloud.rotate(Quaternion(pose["rotation"]).rotation_matrix)
    cloud.translate(np.array(pose["translation"]))
    mount, pose = steps(camera)
    cloud.translate(-np.array(pose["translation"]))
    cloud.rotate(Quaternion(pose["rotation"]).rotation_matrix.T)
    cloud.translate(-np.array(mount["translation"]))
    cloud.rotate(Quaternion(mount["rotation"]).rotation_matrix.T)
    depth = cloud.points[2]
    pixels = view_points(cloud.points[:3], np.array(mount["camera_intrinsic"]), normalize=True)
    seen = (depth > 1.0) & (pixels[0] > 1) & (pixels[0] < camera["width"] - 1)
    seen &= (pixels[1] > 1) & (pixels[1] < camera["height"] - 1)
    return pixels[:, seen]

shots = [nusc.get("sample_data", t) for n, t in sample["data"].items() if n.startswith("CAM_")]
for _ in sys.stdin:
    start = time.process_time()
    seen = sum(project(shot).shape[1] for shot in shots)
    print(1000 * (time.process_time() - start), points.shape[1], len(shots), seen, flush=True)
"""


def project_all(points: np.ndarray, frame: Frame) -> int:
    """Return how many points all cameras of a frame see."""
    return sum(int((project(points, camera)[:, 0] >= 0).sum()) for camera in frame.cameras)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        root, dataset = nuscenes_root(Path(folder))
        manifest = load_manifest(dataset)
        table = nuscenes.index(root, manifest, "v1.0-mini")
        frame = to_frames(table, split_names(manifest))[0]
        points = nuscenes.load_points(root, frame.points_path).points
        project_all(points, frame)  # compile
        ours, theirs, seen = [], [], [0, 0]
        with Peer(DEVKIT, SCRIPT, str(root)) as devkit:
            devkit.ask()  # warm
            for _ in range(rounds):
                start = time.process_time()
                seen[0] = project_all(points, frame)
                ours.append(1000 * (time.process_time() - start))
                milliseconds, num_points, num_cameras, seen[1] = map(float, devkit.ask().split())
                theirs.append(milliseconds)
    print(f"{dataset}, {num_points:.0f} points into {num_cameras:.0f} cameras, {rounds} rounds:")
    for name, found, count in (("devkit", theirs, seen[1]), ("selkie", ours, seen[0])):
        middle = np.median(found)
        print(f"  {name}: median {middle:.2f}, best {min(found):.2f} ms CPU, {count:.0f} seen")
    median, best = np.median(theirs) / np.median(ours), min(theirs) / min(ours)
    print(f"  ratio {median:.1f} of medians, {best:.1f} of best (reach 10)")


if __name__ == "__main__":
    main()

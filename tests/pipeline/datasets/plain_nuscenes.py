"""The slow plain twin of the nuScenes reader: dictionaries and one frame after the other."""

import itertools

import numpy as np
import orjson

from pipeline.geometry import Transform, rigid, rotation_from_quaternion
from pipeline.splits import assign_splits, scene_lists
from pipeline.types import Camera, Frame, Sweep


class Tables:
    def __init__(self, folder):
        for path in folder.glob("*.json"):
            setattr(self, path.stem, {row["token"]: row for row in orjson.loads(path.read_bytes())})

    def channel(self, shot):
        mount = self.calibrated_sensor[shot["calibrated_sensor_token"]]
        return self.sensor[mount["sensor_token"]]["channel"]

    def T_world_sensor(self, shot, sensor):
        mount = self.calibrated_sensor[shot["calibrated_sensor_token"]]
        pose = self.ego_pose[shot["ego_pose_token"]]
        return _rigid("world", "ego", pose) @ _rigid("ego", sensor, mount)


def _rigid(dst, src, row):
    rotation = rotation_from_quaternion(np.array(row["rotation"], np.float64))
    return Transform(dst, src, rigid(rotation, np.array(row["translation"], np.float64)))


def plain_frames(root, manifest, version):
    tables = Tables(root / version)
    frames = []
    for scene in tables.scene.values():
        samples = [scene["first_sample_token"]]
        while tables.sample[samples[-1]]["next"]:
            samples.append(tables.sample[samples[-1]]["next"])
        shots = [
            {
                tables.channel(shot): shot
                for shot in tables.sample_data.values()
                if shot["sample_token"] == sample and shot["is_key_frame"]
            }
            for sample in samples
        ]
        for position, here in enumerate(shots):
            ahead = shots[position + manifest.pair_gap :][:1]
            frames.append(_frame(root, tables, manifest, scene["name"], position, here, ahead))
    splits = assign_splits(
        manifest,
        scene_lists(manifest, root, version),
        [scene["name"] for scene in tables.scene.values()],
        [frame.scene for frame in frames],
        [frame.points_path for frame in frames],
    )
    for frame, names in zip(frames, splits, strict=True):
        object.__setattr__(frame, "splits", names)
    if not any(itertools.chain.from_iterable(frame.cameras for frame in frames)):
        for frame in frames:
            object.__setattr__(frame, "cameras", ())
    return frames


def _frame(root, tables, manifest, scene, position, shots, ahead):
    lidar = shots["LIDAR_TOP"]
    T_world_lidar = tables.T_world_sensor(lidar, "lidar")
    cameras, sweeps = [], []
    for name in manifest.cameras:
        shot = shots.get(name)
        if shot is None:
            cameras.append(None)
            continue
        mount = tables.calibrated_sensor[shot["calibrated_sensor_token"]]
        T_cam_lidar = tables.T_world_sensor(shot, "cam").inverse() @ T_world_lidar
        K = np.array(mount["camera_intrinsic"], np.float64)
        cameras.append(
            Camera(name, shot["token"], shot["filename"], shot["height"], shot["width"], K,
                   T_cam_lidar.matrix, shot["timestamp"] * 1000)
        )  # fmt: skip
    shot = lidar
    while ahead and shot["next"]:
        shot = tables.sample_data[shot["next"]]
        if shot is ahead[0]["LIDAR_TOP"]:
            break
        T_lidar_sweep = T_world_lidar.inverse() @ tables.T_world_sensor(shot, "sweep")
        sweeps.append(Sweep(shot["filename"], T_lidar_sweep.matrix))
    return Frame(
        frame_id=f"{scene}/{position}",
        scene=scene,
        position=position,
        splits=(),
        t_ns=lidar["timestamp"] * 1000,
        points_path=lidar["filename"],
        max_points=(root / lidar["filename"]).stat().st_size // 20,
        lidar_token=lidar["token"],
        T_world_lidar=T_world_lidar.matrix,
        successor_id=f"{scene}/{position + manifest.pair_gap}" if ahead else None,
        sweeps=tuple(sweeps),
        cameras=tuple(cameras),
    )

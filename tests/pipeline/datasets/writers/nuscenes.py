"""nuScenes: the city's drives as tables, samples, sweeps, lidarseg and panoptic of v1.0-mini.

Other poses, mounts and numbering than the city's own tables have: every sensor frame has an ego
pose of its own, the vehicle moves on between scan and image, and category.json counts backwards.
"""

from pathlib import Path

import numpy as np
import orjson

from pipeline.geometry import rigid
from pipeline.image import encode_jpeg
from pipeline.manifest import Manifest
from tests.pipeline.datasets.writers.drive import Moment, Written, put
from tests.pipeline.datasets.writers.rellis3d import quaternion

SCENES = {"scene-0061": ("train", "mini_train", "slidr_train", "full"), "scene-0003": ("val",)}
QUARTER = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # to the left about z
T_EGO_LIDAR = rigid(QUARTER.T, np.array([0.94, 0.0, 1.84]))  # LiDAR x is to the right, as mounted
ONWARD = rigid(np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]]), np.array([0.7, 0.1, 0.0]))


def write_nuscenes(root: Path, scenes: list[list[Moment]], manifest: Manifest) -> list[Written]:
    """Write both scenes; return the keyframes, which are the moments with images."""
    names = ("scene", "sample", "sample_data", "sensor", "calibrated_sensor", "ego_pose")
    tables: dict[str, list[dict]] = {name: [] for name in (*names, "lidarseg", "panoptic")}
    last = max(manifest.raw_names)
    tables["category"] = [
        {"token": name, "name": name, "index": last - raw}
        for raw, name in manifest.raw_names.items()
    ]
    for channel in ("LIDAR_TOP", *manifest.cameras[:2]):
        tables["sensor"].append({"token": channel, "channel": channel})
    written = []
    for (name, splits), moments in zip(SCENES.items(), scenes, strict=True):
        keys = [k for k, moment in enumerate(moments) if moment.images]
        samples = [f"{name}-s{n}" for n in range(len(keys))]
        tables["scene"].append({"token": name, "name": name, "first_sample_token": samples[0]})
        for n, sample in enumerate(samples):
            after = samples[n + 1] if n + 1 < len(samples) else ""
            tables["sample"].append({"token": sample, "scene_token": name, "next": after})
        for k, moment in enumerate(moments):
            n = sum(key <= k for key in keys) - 1
            shot = f"{name}-lidar{k}"
            after = f"{name}-lidar{k + 1}" if k + 1 < len(moments) else ""
            folder = "samples" if k in keys else "sweeps"
            path = f"{folder}/LIDAR_TOP/{shot}.pcd.bin"
            pose = moment.T_world_lidar @ np.linalg.inv(T_EGO_LIDAR)
            _shot(tables, shot, samples[n], moment, pose, path, k in keys, after)
            _mount(tables, shot, "LIDAR_TOP", T_EGO_LIDAR, [])
            put(root / path, np.column_stack([moment.points, moment.ring]).astype("<f4").tobytes())
            if k not in keys:
                continue
            semantic, number = moment.semantic(manifest), moment.instance()
            instance = np.where(number > 0, 1000 * semantic + number, 0).astype(np.uint16)
            _put_labels(root, tables, shot, last - semantic, 1000 * semantic + number)
            for camera, image in zip(moment.cameras, moment.images, strict=True):
                seen, T_world_ego = f"{shot}-{camera.name}", pose @ ONWARD
                T_cam_ego = camera.T_cam_lidar @ np.linalg.inv(moment.T_world_lidar) @ T_world_ego
                path = f"samples/{camera.name}/{seen}.jpg"
                _shot(tables, seen, samples[n], moment, T_world_ego, path, True, "", image.shape)
                _mount(tables, seen, camera.name, np.linalg.inv(T_cam_ego), camera.K.tolist())
                put(root / path, encode_jpeg(image).tobytes())
            lacking = (None,) * (len(manifest.cameras) - len(moment.cameras))
            written.append(
                Written(
                    f"{name}/{n}", splits, moment.points, semantic, instance, moment.ring,
                    moment.T_world_lidar, moment.t_ns, (*moment.cameras, *lacking),
                    (*moment.images, *lacking),
                )
            )  # fmt: skip
    for name, rows in tables.items():
        put(root / f"v1.0-mini/{name}.json", orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    return written


def _shot(tables, token, sample, moment, T_world_ego, path, is_key, after, shape=(0, 0)) -> None:
    tables["ego_pose"].append({"token": token, **_rigid(T_world_ego)})
    tables["sample_data"].append(
        {
            "token": token, "sample_token": sample, "ego_pose_token": token,
            "calibrated_sensor_token": token, "timestamp": moment.t_ns // 1000,
            "is_key_frame": is_key, "filename": path, "prev": "", "next": after,
            "height": shape[0], "width": shape[1],
        }
    )  # fmt: skip


def _mount(tables, token, channel, T_ego_sensor, K) -> None:
    row = {"token": token, "sensor_token": channel, "camera_intrinsic": K}
    tables["calibrated_sensor"].append(row | _rigid(T_ego_sensor))


def _rigid(matrix: np.ndarray) -> dict:
    return {"translation": matrix[:3, 3].tolist(), "rotation": quaternion(matrix[:3, :3])}


def _put_labels(root, tables, token, installed, panoptic) -> None:
    for table, suffix in (("lidarseg", "bin"), ("panoptic", "npz")):
        path = f"{table}/v1.0-mini/{token}_{table}.{suffix}"
        tables[table].append({"token": token, "sample_data_token": token, "filename": path})
    put(root / f"lidarseg/v1.0-mini/{token}_lidarseg.bin", installed.astype("u1").tobytes())
    path = root / f"panoptic/v1.0-mini/{token}_panoptic.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, data=panoptic.astype(np.uint16))

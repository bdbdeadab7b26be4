"""A nuScenes folder small enough to work out by hand: two scenes, two cameras, one sweep each."""

import struct
from pathlib import Path

import orjson

# Ego: x forward, y left, z up. Camera: x right, y down, z forward. wxyz.
CAMERA_AXES = [0.5, -0.5, 0.5, -0.5]
QUARTER_TURN = [0.5**0.5, 0.0, 0.0, 0.5**0.5]  # 90 degrees to the left about z
LIDAR_MOUNT, CAMERA_MOUNT = [1.0, 0.0, 2.0], [2.0, 0.0, 1.5]
SCENES = {"scene-0061": 3, "scene-0003": 1}  # file order; the first is in train, the second in val


def make_tables() -> dict[str, list[dict]]:
    """Ego drives along world +y: a keyframe every 2 m, a sweep 0.5 m on, cameras 1 m after."""
    tables: dict[str, list[dict]] = {
        "sensor": [
            {"token": "sensor-l", "channel": "LIDAR_TOP"},
            {"token": "sensor-f", "channel": "CAM_FRONT"},
            {"token": "sensor-r", "channel": "RADAR_FRONT"},
        ],
        "calibrated_sensor": [
            _mount("cs-l", "sensor-l", LIDAR_MOUNT, [1.0, 0.0, 0.0, 0.0], []),
            _mount(
                "cs-f", "sensor-f", CAMERA_MOUNT, CAMERA_AXES, [[10, 0, 4], [0, 10, 3], [0, 0, 1]]
            ),
            _mount("cs-r", "sensor-r", [0, 0, 0], [1, 0, 0, 0], []),
        ],
        "scene": [],
        "sample": [],
        "sample_data": [],
        "ego_pose": [],
    }
    for scene, count in SCENES.items():
        tables["scene"].append(
            {
                "token": scene,
                "name": scene,
                "first_sample_token": f"{scene}-s0",
                "nbr_samples": count,
            }
        )
        for k in range(count):
            last = k + 1 == count
            sample = f"{scene}-s{k}"
            onward = {"next": "" if last else f"{scene}-s{k + 1}", "scene_token": scene}
            tables["sample"].append({"token": sample, "prev": "", **onward})
            time_us, y = 1_000_000 + 500_000 * k, 20.0 + 2 * k
            after = "" if last else f"{sample}-sweep"
            _shot(tables, sample, "lidar", "cs-l", time_us, y, True, after, "pcd.bin")
            _shot(tables, sample, "front", "cs-f", time_us + 40_000, y + 1, True, "", "jpg")
            _shot(tables, sample, "front2", "cs-f", time_us + 90_000, y + 1, False, "", "jpg")
            _shot(tables, sample, "radar", "cs-r", time_us, y, True, "", "pcd")
            if not last:
                following = f"{scene}-s{k + 1}-lidar"
                _shot(
                    tables,
                    sample,
                    "sweep",
                    "cs-l",
                    time_us + 50_000,
                    y + 0.5,
                    False,
                    following,
                    "pcd.bin",
                )
    return tables


def write_tables(root: Path, tables: dict[str, list[dict]], version: str = "v1.0-mini") -> Path:
    """Write tables and point files (2 points in scene-0061, 3 in scene-0003); return the root."""
    folder = root / version
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    for row in tables["sample_data"]:
        if row["filename"].endswith(".pcd.bin"):
            path = root / row["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            count = 2 if "scene-0061" in row["filename"] else 3
            path.write_bytes(struct.pack("<5f", 5, 1, 0, 100, 7) * count)
    return root


def _mount(token, sensor, translation, rotation, intrinsic) -> dict:
    return {
        "token": token,
        "sensor_token": sensor,
        "translation": translation,
        "rotation": rotation,
        "camera_intrinsic": intrinsic,
    }


def _shot(tables, sample, name, mount, time_us, y, is_key, following, suffix) -> None:
    token = f"{sample}-{name}"
    size = {"height": 6, "width": 8} if suffix == "jpg" else {"height": 0, "width": 0}
    tables["sample_data"].append(
        {
            "token": token,
            "sample_token": sample,
            "ego_pose_token": f"{token}-ego",
            "calibrated_sensor_token": mount,
            "timestamp": time_us,
            "is_key_frame": is_key,
            "filename": f"samples/{token}.{suffix}",
            "prev": "",
            "next": following,
            **size,
        }
    )
    tables["ego_pose"].append(
        {
            "token": f"{token}-ego",
            "rotation": QUARTER_TURN,
            "translation": [10.0, y, 0.0],
            "timestamp": time_us,
        }
    )

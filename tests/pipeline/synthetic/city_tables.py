"""The tiny city's tables as a test reads them, with no reader of ours in between."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.geometry import invert_rigid, move, rigid, rotation_from_quaternion


@dataclass(frozen=True)
class Keyframe:
    """One sample: its LiDAR scan in three chains, and its cameras' records."""

    split: str
    points: np.ndarray  # [N, 5] float32
    raw: np.ndarray  # [N] uint8
    T_world_lidar: np.ndarray
    cameras: dict[str, dict]  # channel -> sample_data record
    lidar: dict  # sample_data record


class City:
    """Reads tables and files of one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables = {p.stem: json.loads(p.read_text()) for p in root.glob("v1.0-mini/*.json")}
        lists = {k: v for k, v in self.tables.items() if isinstance(v, list)}
        self.by_token = {k: {r["token"]: r for r in v} for k, v in lists.items()}

    def channel(self, record: dict) -> str:
        mount = self.by_token["calibrated_sensor"][record["calibrated_sensor_token"]]
        return self.by_token["sensor"][mount["sensor_token"]]["channel"]

    def T_ego_sensor(self, record: dict) -> np.ndarray:
        mount = self.by_token["calibrated_sensor"][record["calibrated_sensor_token"]]
        return rigid(rotation_from_quaternion(mount["rotation"]), mount["translation"])

    def T_world_ego(self, record: dict) -> np.ndarray:
        pose = self.by_token["ego_pose"][record["ego_pose_token"]]
        return rigid(rotation_from_quaternion(pose["rotation"]), pose["translation"])

    def keyframes(self) -> list[Keyframe]:
        by_sample: dict[str, dict] = {}
        for record in self.tables["sample_data"]:
            if record["is_key_frame"]:
                by_sample.setdefault(record["sample_token"], {})[self.channel(record)] = record
        frames = []
        for token, records in by_sample.items():
            scene = self.by_token["scene"][self.by_token["sample"][token]["scene_token"]]["name"]
            split = "train" if scene in self.tables["splits"]["train"] else "val"
            lidar = records.pop("LIDAR_TOP")
            points = np.fromfile(self.root / lidar["filename"], "<f4").reshape(-1, 5)
            file = self.by_token["lidarseg"][lidar["token"]]["filename"]
            raw = np.fromfile(self.root / file, np.uint8)
            T_world_lidar = self.T_world_ego(lidar) @ self.T_ego_sensor(lidar)
            frames.append(Keyframe(split, points, raw, T_world_lidar, records, lidar))
        return frames

    def project(
        self, frame: Keyframe, camera: dict, one_pose: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return uv [M, 2] int, depth [M] and the indices [M] of the points a camera sees."""
        T_world_ego = self.T_world_ego(frame.lidar if one_pose else camera)
        T_cam_lidar = invert_rigid(T_world_ego @ self.T_ego_sensor(camera)) @ frame.T_world_lidar
        points_cam = move(T_cam_lidar, frame.points)
        mount = self.by_token["calibrated_sensor"][camera["calibrated_sensor_token"]]
        depth = points_cam[:, 2]
        ahead = np.flatnonzero(depth > 1.0)
        uv = points_cam[ahead] @ np.array(mount["camera_intrinsic"]).T
        uv = uv[:, :2] / depth[ahead, None]
        inside = (uv > 0).all(1) & (uv[:, 0] < camera["width"] - 1)
        inside &= uv[:, 1] < camera["height"] - 1
        return np.rint(uv[inside]).astype(int), depth[ahead[inside]], ahead[inside]

    def image(self, camera: dict) -> np.ndarray:
        return cv2.imread(str(self.root / camera["filename"]))

    def oracle(self, camera: dict) -> tuple[np.ndarray, np.ndarray]:
        """Return segment ids [H, W] and raw category [H, W] (-1 sky) of a camera."""
        ids = cv2.imread(str(self.root / f"oracle/{camera['token']}.png"), cv2.IMREAD_UNCHANGED)
        listed = json.loads((self.root / f"oracle/{camera['token']}.json").read_text())
        category = np.full(ids.max() + 1, -9)
        for segment in listed:
            category[segment["id"]] = segment["category_id"]
        return ids, category[ids]


def train_ids() -> np.ndarray:
    """Return raw -> train id [256], 255 = ignored, worked out from the class names here."""
    table = np.full(256, 255)
    mapping = {2: 6, 3: 6, 4: 6, 6: 6, 9: 0, 12: 7, 14: 1, 15: 2, 16: 2, 17: 3, 18: 4, 21: 5, 22: 8}
    mapping |= {23: 9, 24: 10, 25: 11, 26: 12, 27: 13, 28: 14, 30: 15}
    for raw, train in mapping.items():
        table[raw] = train
    return table

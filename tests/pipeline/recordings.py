"""Where tests find the small real recordings, and the few lines they share to read KITTI."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.geometry import invert_rigid


def recording(folder: str) -> Path:
    """Return a folder of SELKIE_DATA (default ../shared/data beside the repository), or skip."""
    base = os.environ.get("SELKIE_DATA") or Path(__file__).parents[2] / "../shared/data"
    path = Path(base) / folder
    if not path.is_dir():
        pytest.skip(f"no real recording at {path}; set SELKIE_DATA")
    return path


class Kitti:
    """Sequence 00 of SemanticKITTI, read without the code under test."""

    def __init__(self) -> None:
        self.root = recording("semantickitti/sequences/00")
        lines = [line.split(":") for line in (self.root / "calib.txt").open() if ":" in line]
        calib = {name: np.array(values.split(), float).reshape(3, 4) for name, values in lines}
        T_cam_lidar = np.vstack([calib["Tr"], [0, 0, 0, 1]])
        poses = np.loadtxt(self.root / "poses.txt").reshape(-1, 3, 4)
        self.T_world_lidar = [
            invert_rigid(T_cam_lidar) @ np.vstack([pose, [0, 0, 0, 1]]) @ T_cam_lidar
            for pose in poses
        ]

    def scan(self, number: int) -> np.ndarray:
        path = self.root / f"velodyne/{number:06d}.bin"
        return np.fromfile(path, np.float32).reshape(-1, 4)

    def objects(self, number: int) -> np.ndarray:
        """Return [N] uint32: instance * 65536 + class; instance 0 for stuff."""
        return np.fromfile(self.root / f"labels/{number:06d}.label", np.uint32)

"""The synthetic city as plain arrays: what the writers put into every other format."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.datasets import nuscenes
from pipeline.index_table import to_frames
from pipeline.manifest import Manifest, load_manifest
from pipeline.splits import split_names
from pipeline.types import Camera

SCANS = 7  # per scene, 10 Hz: two keyframes and the sweeps around them


@dataclass(frozen=True)
class Moment:
    """One scan: points [N, 4], labels of every point, where the LiDAR was, pictures if any."""

    points: np.ndarray  # [N, 4] float32
    ring: np.ndarray  # [N] uint8
    T_world_lidar: np.ndarray
    t_ns: int
    cameras: tuple[Camera, ...]  # a keyframe's first two; none for a sweep
    images: tuple[np.ndarray, ...]

    def semantic(self, manifest: Manifest) -> np.ndarray:
        """Return raw ids [N] uint16 of a data set: every one it knows, in turn."""
        ids = np.array(sorted(manifest.raw_names), np.uint16)
        return ids[np.arange(len(self.points)) % len(ids)]

    def instance(self) -> np.ndarray:
        """Return instance ids [N] uint16, 0 = none."""
        return (np.arange(len(self.points)) % 11).astype(np.uint16)


@dataclass(frozen=True)
class Written:
    """What a reader must give back for one scan."""

    frame_id: str
    splits: tuple[str, ...]  # the data set's own
    points: np.ndarray  # [N, 4]
    semantic: np.ndarray | None
    instance: np.ndarray | None = None
    ring: np.ndarray | None = None
    T_world_lidar: np.ndarray | None = None
    t_ns: int | None = None
    cameras: tuple[Camera | None, ...] = ()
    images: tuple[np.ndarray | None, ...] = ()


def record(city: Path) -> list[list[Moment]]:
    """Return the city's scenes, SCANS moments each, a third of the points."""
    manifest = load_manifest("synthetic")
    frames = to_frames(nuscenes.index(city, manifest, "v1.0-mini"), split_names(manifest))
    scenes = []
    for start in (0, 4):
        moments = []
        for frame in frames[start : start + 2]:
            cameras = tuple(
                replace(c, T_cam_lidar=frames[start].cameras[k].T_cam_lidar, K=c.K)
                for k, c in enumerate(frame.cameras[:2])
            )
            images = tuple(nuscenes.load_image(city, camera) for camera in cameras)
            shots = [(frame.points_path, np.eye(4), cameras, images)]
            shots += [(s.path, s.T_lidar_sweep, (), ()) for s in frame.sweeps]
            for k, (path, T_lidar_sweep, seen, pictures) in enumerate(shots):
                cloud = nuscenes.load_points(city, path)
                moments.append(
                    Moment(
                        cloud.points[::3],
                        cloud.ring[::3],
                        frame.T_world_lidar @ T_lidar_sweep,
                        frame.t_ns + k * 100_000_000,
                        seen,
                        pictures,
                    )
                )
        scenes.append(moments[:SCANS])
    return scenes


def text(matrix: np.ndarray) -> str:
    """Return numbers on one line, exact."""
    return " ".join(repr(float(value)) for value in np.ravel(matrix))


def pack_labels(semantic: np.ndarray, instance: np.ndarray) -> bytes:
    """Return KITTI label records."""
    return (semantic.astype("<u4") | instance.astype("<u4") << 16).tobytes()


def put(path: Path, data: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def relative_poses(moments: list[Moment]) -> list[np.ndarray]:
    """Return T_first_lidar of every moment: numbers small enough to be exact in text."""
    first = np.linalg.inv(moments[0].T_world_lidar)
    return [first @ moment.T_world_lidar for moment in moments]

"""Reader of the KITTI odometry layout: sequences/<seq>/ with velodyne, labels, image_*.

A frame's position is its scan number, so frame ids stay the same when files are added. The cameras
of a data set are those of the manifest that have an image anywhere under the root.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError, check
from pipeline.formats import (
    KITTI_POINT_BYTES,
    PointFiles,
    read_camera,
    read_kitti_labels,
    read_kitti_points,
    read_png_size,
)
from pipeline.geometry import Transform
from pipeline.kitti_calibration import (
    calib_row,
    read_calib,
    read_lidar_poses,
    read_rows,
    split_projection,
)
from pipeline.manifest import Manifest
from pipeline.splits import assign_splits, scene_lists
from pipeline.types import Camera, Frame, Labels, PointCloud, Sweep

SCAN_INTERVAL_NS = 100_000_000  # 10 Hz, where times.txt is missing

load_image: Callable[[Path, Camera], np.ndarray] = read_camera


@dataclass(frozen=True)
class _Sequence:
    """What lies in one sequence's folder."""

    name: str
    folder: str  # relative to the root
    stems: dict[int, str]  # scan number -> file name without suffix, sorted
    labels: set[str]
    images: dict[str, set[str]]  # camera -> stems
    projections: dict[str, Transform]  # camera -> T_cam_lidar
    intrinsics: dict[str, np.ndarray]  # camera -> K
    sizes: dict[str, tuple[int, int]]  # camera -> height, width
    T_world_lidar: np.ndarray | None  # [scans of the sequence, 4, 4]
    times_ns: list[int] | None


def index(root: Path, manifest: Manifest, version: str | None) -> list[Frame]:
    """Return every scan of every sequence, in the order of sequence, then number.

    Args:
        root: folder that holds `sequences` or `dataset/sequences`.
        manifest: cameras, splits, pair gap.
        version: None, the layout has no versions.

    Raises:
        UserError: no sequence here, or calib, poses or times that do not fit the scans.

    Source: PRBonn/semantic-kitti-api (MIT), generate_sequential.py for the poses.
    """
    base = _sequences_folder(root)
    names = sorted(p.name for p in (root / base).iterdir() if (p / "velodyne").is_dir())
    cameras = _cameras(root / base, names, manifest)
    sequences = [_load_sequence(root, f"{base}/{name}", name, cameras) for name in names]
    scans = [
        (s, stem, f"{s.folder}/velodyne/{stem}.bin") for s in sequences for stem in s.stems.values()
    ]
    check(
        bool(scans),
        f"{root / base}: must hold <sequence>/velodyne/*.bin, got none; to get the data: "
        f"{manifest.how_to_get}",
    )
    members = assign_splits(
        manifest,
        scene_lists(manifest, root, version),
        names,
        [sequence.name for sequence, _, _ in scans],
        [path for _, _, path in scans],
    )
    files = PointFiles(root, KITTI_POINT_BYTES)
    frames = []
    for (sequence, stem, path), splits in zip(scans, members, strict=True):
        label = f"{sequence.folder}/labels/{stem}.label" if stem in sequence.labels else None
        poses = sequence.T_world_lidar
        successor, sweeps = _onward(sequence, stem, manifest.pair_gap)
        frames.append(
            Frame(
                frame_id=f"{sequence.name}/{int(stem)}",
                scene=sequence.name,
                position=int(stem),
                splits=splits,
                t_ns=_time_ns(sequence, stem),
                points_path=path,
                max_points=files.max_points(path),
                lidar_token=f"{sequence.name}_{stem}",
                T_world_lidar=None if poses is None else poses[int(stem)],
                successor_id=successor,
                sweeps=sweeps,
                label_path=label,
                instance_path=label,
                cameras=tuple(_camera(sequence, camera, stem) for camera in cameras),
            )
        )
    files.check_complete("copy the scans again")
    return frames


def load_points(root: Path, path: str) -> PointCloud:
    """Return a scan in its own sensor frame; remission 0..1, rings unknown.

    Raises:
        UserError: the file is missing, cut short or damaged.
    """
    return read_kitti_points(root / path)


def load_labels(root: Path, frame: Frame, num_points: int) -> Labels | None:
    """Return semantic and instance ids; None for a frame without labels.

    Raises:
        UserError: the file is missing or not one label per point.
    """
    return read_kitti_labels(root / frame.label_path, num_points) if frame.label_path else None


def _sequences_folder(root: Path) -> str:
    for folder in ("sequences", "dataset/sequences"):
        if (root / folder).is_dir():
            return folder
    raise UserError(
        f"{root}: must hold sequences or dataset/sequences, got neither; correct the root"
    )


def _stems(folder: Path, suffix: str) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(n.removesuffix(suffix) for n in os.listdir(folder) if n.endswith(suffix))


def _cameras(base: Path, names: Sequence[str], manifest: Manifest) -> tuple[str, ...]:
    for choice in (manifest.cameras, manifest.fallback_cameras):
        found = tuple(c for c in choice if any(_stems(base / n / c, ".png") for n in names))
        if found:
            return found
    return ()


def _load_sequence(root: Path, folder: str, name: str, cameras: Sequence[str]) -> _Sequence:
    path = root / folder
    stems = _stems(path / "velodyne", ".bin")
    odd = [stem for stem in stems if not stem.isdecimal()]
    check(
        not odd,
        f"{path / 'velodyne'}: scans must be named by number, got {odd[:3]}; move them away",
    )
    last = max(map(int, stems), default=-1)
    images = {camera: set(_stems(path / camera, ".png")) for camera in cameras}
    here = [camera for camera in cameras if images[camera]]
    has_poses = (path / "poses.txt").is_file()
    rows = read_calib(path / "calib.txt") if here or has_poses else {}
    T_cam0_lidar = (
        Transform("cam0", "lidar", calib_row(rows, "Tr", path / "calib.txt")) if rows else None
    )
    intrinsics, projections = {}, {}
    for camera in here:
        P = calib_row(rows, f"P{camera.rpartition('_')[2]}", path / "calib.txt")
        intrinsics[camera], T_cam_cam0 = split_projection(P)
        projections[camera] = Transform("cam", "cam0", T_cam_cam0) @ T_cam0_lidar
    times = read_rows(path / "times.txt", 1, last) if (path / "times.txt").is_file() else None
    return _Sequence(
        name=name,
        folder=folder,
        stems={int(stem): stem for stem in stems},
        labels=set(_stems(path / "labels", ".label")),
        images=images,
        projections=projections,
        intrinsics=intrinsics,
        sizes={c: read_png_size(path / c / f"{min(images[c])}.png") for c in here},
        T_world_lidar=read_lidar_poses(path / "poses.txt", T_cam0_lidar, last)
        if has_poses
        else None,
        times_ns=None if times is None else np.rint(times[:, 0] * 1e9).astype(np.int64).tolist(),
    )


def _time_ns(sequence: _Sequence, stem: str) -> int:
    times = sequence.times_ns
    return int(stem) * SCAN_INTERVAL_NS if times is None else times[int(stem)]


def _onward(sequence: _Sequence, stem: str, gap: int) -> tuple[str | None, tuple[Sweep, ...]]:
    """The successor's frame id, and the scans strictly between; neither without poses."""
    poses, t = sequence.T_world_lidar, int(stem)
    if poses is None or t + gap not in sequence.stems:
        return None, ()
    T_lidar_world = Transform("world", "lidar", poses[t]).inverse()
    between = [number for number in range(t + 1, t + gap) if number in sequence.stems]
    return f"{sequence.name}/{t + gap}", tuple(
        Sweep(
            path=f"{sequence.folder}/velodyne/{sequence.stems[number]}.bin",
            T_lidar_sweep=(T_lidar_world @ Transform("world", "sweep", poses[number])).matrix,
        )
        for number in between
    )


def _camera(sequence: _Sequence, camera: str, stem: str) -> Camera | None:
    if stem not in sequence.images[camera]:
        return None
    height, width = sequence.sizes[camera]
    return Camera(
        name=camera,
        token=f"{sequence.name}_{camera}_{stem}",
        path=f"{sequence.folder}/{camera}/{stem}.png",
        height=height,
        width=width,
        K=sequence.intrinsics[camera],
        T_cam_lidar=sequence.projections[camera].matrix,
        t_ns=_time_ns(sequence, stem),
    )

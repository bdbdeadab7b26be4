"""Reader of your own recordings: a folder per scene with clouds, images, poses, labels.

Clouds are .bin (KITTI records), .npy, .pcd or .ply; files of one moment share their name. Cameras
come from calibration.yaml. Points without a return (NaN or (0, 0, 0)) are dropped, with their
labels. docs/datasets.md has the layout.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.errors import check
from pipeline.folder_calibration import read_cameras, read_splits
from pipeline.formats import (
    KITTI_POINT_BYTES,
    PointFiles,
    read_camera,
    read_kitti_labels,
    read_kitti_points,
)
from pipeline.geometry import Transform
from pipeline.kitti_calibration import read_rows
from pipeline.manifest import Manifest
from pipeline.npy import npy_shape, read_npy_labels, read_npy_points
from pipeline.pcd import read_pcd, read_pcd_header
from pipeline.ply import read_ply, read_ply_header
from pipeline.scan_tree import scan_time_ns
from pipeline.splits import assign_splits
from pipeline.types import Camera, Frame, Labels, PointCloud, Sweep

CLOUD_SUFFIXES = (".bin", ".npy", ".pcd", ".ply")
LABEL_SUFFIXES = (".label", ".npy")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

load_image: Callable[[Path, Camera], np.ndarray] = read_camera


@dataclass(frozen=True)
class _Scene:
    name: str
    stems: list[str]  # of the clouds, in time order
    clouds: dict[str, str]  # stem -> path relative to the root
    labels: dict[str, str]
    images: dict[str, dict[str, str]]  # camera -> stem -> path
    T_world_lidar: np.ndarray | None  # [scans, 4, 4]
    times_ns: list[int] | None


def index(root: Path, manifest: Manifest, version: str | None) -> list[Frame]:
    """Return every cloud of every scene, in the order of scene, then file name.

    Args:
        root: folder of scenes, each with `clouds`; calibration.yaml and splits.yaml beside them.
        manifest: pair gap, rate, classes.
        version: None, the layout has no versions.

    Raises:
        UserError: no cloud here, or calibration, poses or times that do not fit the clouds.
    """
    names = sorted(p.name for p in root.iterdir() if (p / "clouds").is_dir())
    cameras = read_cameras(root / "calibration.yaml")
    _check_cameras(root, names, cameras)
    scenes = [_load_scene(root, manifest, name, tuple(cameras)) for name in names]
    keys = [(scene, position) for scene in scenes for position in range(len(scene.stems))]
    check(
        bool(keys),
        f"{root}: must hold <scene>/clouds/ with {', '.join(CLOUD_SUFFIXES)} files, got none; "
        "see docs/datasets.md for the layout",
    )
    members = assign_splits(
        manifest,
        read_splits(root / "splits.yaml", names, manifest.scene_lists),
        names,
        [scene.name for scene, _ in keys],
        [scene.clouds[scene.stems[k]] for scene, k in keys],
        [scene.stems[k] in scene.labels for scene, k in keys],
    )
    files = PointFiles(root)
    frames = [
        _frame(manifest, files, scene, position, splits, cameras)
        for (scene, position), splits in zip(keys, members, strict=True)
    ]
    files.check_complete("copy the clouds again")
    return frames


def load_points(root: Path, path: str) -> PointCloud:
    """Return the returns of a cloud in its own frame; ring 255 where the file has none.

    Raises:
        UserError: the file is missing, cut short, damaged, or without a single return.
    """
    cloud = _read_cloud(root / path)
    is_return = _returns(cloud)
    check(
        bool(is_return.any()),
        f"{root / path}: a cloud must have a point, got {len(is_return)} without a return; "
        "remove the file",
    )
    return PointCloud(cloud.points[is_return], cloud.ring[is_return])


def load_labels(root: Path, frame: Frame, num_points: int) -> Labels | None:
    """Return the labels of the returns; None for a frame without labels.

    Raises:
        UserError: the file is missing or not one label per point of the cloud's file.
    """
    if frame.label_path is None:
        return None
    is_return = _returns(_read_cloud(root / frame.points_path))
    read = read_npy_labels if frame.label_path.endswith(".npy") else read_kitti_labels
    labels = read(root / frame.label_path, len(is_return))
    instance = None if labels.instance is None else labels.instance[is_return]
    return Labels(labels.semantic[is_return], instance)


def _read_cloud(path: Path) -> PointCloud:
    if path.suffix == ".npy":
        return read_npy_points(path)
    if path.suffix == ".pcd":
        return read_pcd(path)
    return read_ply(path) if path.suffix == ".ply" else read_kitti_points(path)


def _returns(cloud: PointCloud) -> np.ndarray:
    xyz = cloud.points[:, :3]
    return np.isfinite(cloud.points).all(axis=1) & xyz.any(axis=1)


def _max_points(path: Path) -> int:
    if path.suffix == ".npy":
        return (npy_shape(path) or (0,))[0]
    if path.suffix == ".pcd":
        return read_pcd_header(path).num_points
    if path.suffix == ".ply":
        return read_ply_header(path).num_points
    return path.stat().st_size // KITTI_POINT_BYTES


def _files(root: Path, folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    here = root / folder
    paths = sorted(here.iterdir()) if here.is_dir() else []
    return {p.stem: f"{folder}/{p.name}" for p in paths if p.suffix.lower() in suffixes}


def _check_cameras(root: Path, names: list[str], cameras: dict[str, Camera]) -> None:
    """Refuse images whose camera is not in calibration.yaml: they would be left out unnoticed."""
    for folder in (folder for name in names for folder in sorted((root / name).glob("images/*"))):
        check(
            folder.name in cameras
            or not _files(root, str(folder.relative_to(root)), IMAGE_SUFFIXES),
            f"{root / 'calibration.yaml'}: must have the camera '{folder.name}', whose images are "
            f"in {folder}, got {', '.join(cameras) or 'none'}; add it, or move the images away",
        )


def _load_scene(root: Path, manifest: Manifest, name: str, cameras: tuple[str, ...]) -> _Scene:
    clouds = _files(root, f"{name}/clouds", CLOUD_SUFFIXES)
    last, poses, times = len(clouds) - 1, root / name / "poses.txt", root / name / "times.txt"
    T_world_lidar = None
    if manifest.has_poses and poses.is_file():
        rows = read_rows(poses, 12, last)
        T_world_lidar = np.tile(np.eye(4), (len(rows), 1, 1))
        T_world_lidar[:, :3] = rows.reshape(-1, 3, 4)
    seconds = read_rows(times, 1, last)[:, 0] if times.is_file() else None
    return _Scene(
        name=name,
        stems=sorted(clouds, key=int if all(map(str.isdecimal, clouds)) else str),
        clouds=clouds,
        labels=_files(root, f"{name}/labels", LABEL_SUFFIXES),
        images={c: _files(root, f"{name}/images/{c}", IMAGE_SUFFIXES) for c in cameras},
        T_world_lidar=T_world_lidar,
        times_ns=None if seconds is None else np.rint(seconds * 1e9).astype(np.int64).tolist(),
    )


def _frame(
    manifest: Manifest,
    files: PointFiles,
    scene: _Scene,
    position: int,
    splits: tuple[str, ...],
    cameras: dict[str, Camera],
) -> Frame:
    stems, stem = scene.stems, scene.stems[position]
    after = position + manifest.pair_gap
    poses, times = scene.T_world_lidar, scene.times_ns
    has_successor = poses is not None and position < after < len(stems)
    t_ns = scan_time_ns(manifest, position) if times is None else times[position]
    sweeps = ()
    if has_successor:
        T_lidar_world = Transform("world", "lidar", poses[position]).inverse()
        sweeps = tuple(
            Sweep(
                scene.clouds[stems[k]],
                (T_lidar_world @ Transform("world", "sweep", poses[k])).matrix,
            )
            for k in range(position + 1, after)
        )
    return Frame(
        frame_id=f"{scene.name}/{stem}",
        scene=scene.name,
        position=position,
        splits=splits,
        t_ns=t_ns,
        points_path=scene.clouds[stem],
        max_points=files.count(scene.clouds[stem], _max_points),
        lidar_token=f"{scene.name}_{stem}",
        T_world_lidar=None if poses is None else poses[position],
        successor_id=f"{scene.name}/{stems[after]}" if has_successor else None,
        sweeps=sweeps,
        label_path=scene.labels.get(stem),
        instance_path=scene.labels.get(stem),
        cameras=tuple(
            replace(
                camera,
                token=f"{scene.name}_{name}_{stem}",
                path=scene.images[name][stem],
                t_ns=t_ns,
            )
            if stem in scene.images[name]
            else None
            for name, camera in cameras.items()
        ),
    )

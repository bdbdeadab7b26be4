"""Reader of RELLIS-3D: Ouster (or Velodyne) scans, one camera, poses per Ouster scan.

The archives unpack to several roots, so every file is looked for in all of them. transforms.yaml
maps camera to LiDAR, so its inverse is T_cam_lidar. An Ouster scan is complete: pixels without a
return are (0, 0, 0), 41 % of an example scan; they are dropped, with their labels.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.errors import check
from pipeline.formats import (
    KITTI_POINT_BYTES,
    PointFiles,
    read_camera,
    read_kitti_labels,
    read_kitti_points,
)
from pipeline.geometry import Transform, invert_rigid
from pipeline.image import read_size
from pipeline.kitti_calibration import calib_row, read_calib, read_lidar_poses
from pipeline.manifest import Manifest
from pipeline.rellis_calibration import read_intrinsics, read_list, read_transform
from pipeline.scan_tree import scan_time_ns
from pipeline.splits import assign_frame_splits
from pipeline.types import Camera, Frame, Labels, PointCloud, Sweep

SENSORS = {"os1": "os1_cloud_node", "vel": "vel_cloud_node"}
CAMERA = "pylon_camera_node"
LISTS = {"train": "pt_train.lst", "val": "pt_val.lst", "test": "pt_test.lst"}
_IMAGE_NAME = re.compile(r"frame(\d+)-(\d+)_(\d+)\.(?:jpg|png)")  # number, seconds, milliseconds

load_image: Callable[[Path, Camera], np.ndarray] = read_camera


@dataclass(frozen=True)
class _Image:
    path: str
    t_ns: int


@dataclass(frozen=True)
class _Sequence:
    name: str
    scans: dict[int, str]  # number -> path, sorted
    labels: dict[int, str]
    images: dict[int, _Image]
    camera: Camera | None  # with the first image's path; None without images
    T_world_lidar: np.ndarray | None  # [scans, 4, 4]


def index(root: Path, manifest: Manifest, version: str | None) -> list[Frame]:
    """Return every scan of every sequence, in the order of sequence, then number.

    Args:
        root: folder of the unpacked archives.
        manifest: the roots inside it, splits, pair gap, distortion.
        version: 'os1' or 'vel', which LiDAR.

    Raises:
        UserError: no sequence here, or calibration, poses or lists that do not fit.

    Source: layout from unmannedlab/RELLIS-3D (README, utils).
    """
    sensor = SENSORS[str(version)]
    bases = manifest.folders.bases
    scans_folder = f"{sensor}_kitti_bin"
    names = sorted(
        {p.parent.name for base in bases for p in (root / base).glob(f"[0-9]*/{scans_folder}")}
    )
    sequences = [_load_sequence(root, manifest, name, sensor) for name in names]
    check(
        any(sequence.scans for sequence in sequences),
        f"{root}: must hold <sequence>/{scans_folder}/*.bin, such as 00000/{scans_folder}, got "
        f"none; correct the root (to get the data: {manifest.how_to_get})",
    )
    lists = {}
    for split, file in LISTS.items():
        path = _find(root, manifest, file)
        lists[split] = read_list(path) if path else frozenset()
    check(
        any(lists.values()),
        f"{root}: must hold the list files {', '.join(LISTS.values())}, got none; "
        "download 'LiDAR split' of RELLIS-3D there",
    )
    scans = [(sequence, number) for sequence in sequences for number in sequence.scans]
    members = assign_frame_splits(
        manifest,
        [[s for s, here in lists.items() if (q.name, n) in here] for q, n in scans],
        [f"{q.name}/{n:06d}" for q, n in scans],
        [n in q.labels for q, n in scans],
    )
    files = PointFiles(root, KITTI_POINT_BYTES)
    frames = [
        _frame(manifest, files, sequence, number, splits)
        for (sequence, number), splits in zip(scans, members, strict=True)
    ]
    files.check_complete("unpack the scans again")
    return frames


def load_points(root: Path, path: str) -> PointCloud:
    """Return the returns of a scan in its own sensor frame, intensity as stored, rings unknown.

    Raises:
        UserError: the file is missing, cut short, damaged, or without a single return.
    """
    cloud = read_kitti_points(root / path)
    is_return = _returns(cloud)
    check(
        bool(is_return.any()),
        f"{root / path}: a scan must have a return, got {len(is_return)} points that are all "
        "(0, 0, 0); copy it again",
    )
    return PointCloud(cloud.points[is_return], cloud.ring[is_return])


def load_labels(root: Path, frame: Frame, num_points: int) -> Labels | None:
    """Return semantic ids of the returns; None for a frame without labels.

    Raises:
        UserError: the file is missing or not one label per point of the file.
    """
    if frame.label_path is None:
        return None
    is_return = _returns(read_kitti_points(root / frame.points_path))
    labels = read_kitti_labels(root / frame.label_path, len(is_return))
    check(
        int(is_return.sum()) == num_points,
        f"{root / frame.points_path}: must have {num_points} returns, got {is_return.sum()}; "
        "do not change files during a run",
    )
    return Labels(labels.semantic[is_return])


def _returns(cloud: PointCloud) -> np.ndarray:
    return cloud.points[:, :3].any(axis=1)


def _find(root: Path, manifest: Manifest, relative: str) -> Path | None:
    """Return the first of the manifest's bases that has this file or folder."""
    paths = (root / base / relative for base in manifest.folders.bases)
    return next((path for path in paths if path.exists()), None)


def _numbered(root: Path, folder: Path | None, suffix: str) -> dict[int, str]:
    """Return number -> path relative to the root, sorted by number."""
    if folder is None:
        return {}
    paths = [p for p in folder.iterdir() if p.suffix == suffix and p.stem.isdecimal()]
    return {int(p.stem): str(p.relative_to(root)) for p in sorted(paths, key=lambda p: int(p.stem))}


def _load_sequence(root: Path, manifest: Manifest, name: str, sensor: str) -> _Sequence:
    scans = _numbered(root, _find(root, manifest, f"{name}/{sensor}_kitti_bin"), ".bin")
    labels = _find(root, manifest, f"{name}/{sensor}_semantickitti_label_id")
    T_os1_lidar = Transform("os1", "lidar", np.eye(4))
    if sensor == SENSORS["vel"]:
        path = _required(root, manifest, name, "vel2os1.yaml")
        T_os1_lidar = Transform("os1", "lidar", read_transform(path, "vel2os1"))
    images = _list_images(root, _find(root, manifest, f"{name}/{CAMERA}"))
    poses = _find(root, manifest, f"{name}/poses.txt")
    T_world_lidar = None
    if manifest.has_poses and poses is not None and scans:
        calib = _find(root, manifest, f"{name}/calib.txt")
        Tr = calib_row(read_calib(calib), "Tr", calib) if calib else np.eye(4)
        found = read_lidar_poses(poses, Transform("cam0", "lidar", Tr), max(scans))
        T_world_lidar = found @ T_os1_lidar.matrix
    camera = _camera(root, manifest, name, images, T_os1_lidar) if images else None
    return _Sequence(name, scans, _numbered(root, labels, ".label"), images, camera, T_world_lidar)


def _required(root: Path, manifest: Manifest, name: str, file: str) -> Path:
    """Return a calibration file of a sequence, or one for all sequences."""
    path = _find(root, manifest, f"{name}/{file}") or _find(root, manifest, file)
    check(
        path is not None,
        f"{root}: must hold {name}/{file} or {file}, got neither; unpack the calibration archives "
        "of RELLIS-3D there",
    )
    return path


def _list_images(root: Path, folder: Path | None) -> dict[int, _Image]:
    found = sorted(folder.iterdir()) if folder else []
    matches = [(path, _IMAGE_NAME.fullmatch(path.name)) for path in found]
    return {
        int(m[1]): _Image(str(p.relative_to(root)), int(m[2]) * 10**9 + int(m[3]) * 10**6)
        for p, m in matches
        if m
    }


def _camera(
    root: Path, manifest: Manifest, name: str, images: dict[int, _Image], T_os1_lidar: Transform
) -> Camera:
    first = next(iter(images.values()))
    height, width = read_size(root / first.path)
    path = _required(root, manifest, name, "transforms.yaml")
    T_os1_cam = Transform("os1", "cam", read_transform(path, f"{SENSORS['os1']}-{CAMERA}"))
    return Camera(
        name=CAMERA,
        token="",
        path=first.path,
        height=height,
        width=width,
        K=read_intrinsics(_required(root, manifest, name, "camera_info.txt")),
        T_cam_lidar=(T_os1_cam.inverse() @ T_os1_lidar).matrix,
        t_ns=first.t_ns,
        distortion=manifest.distortion,
    )


def _frame(
    manifest: Manifest,
    files: PointFiles,
    sequence: _Sequence,
    number: int,
    splits: tuple[str, ...],
) -> Frame:
    poses, image = sequence.T_world_lidar, sequence.images.get(number)
    after = number + manifest.pair_gap
    has_successor = poses is not None and after in sequence.scans and after > number
    camera = None
    if image is not None:
        camera = replace(
            sequence.camera,
            token=f"{sequence.name}_{CAMERA}_{number:06d}",
            path=image.path,
            t_ns=image.t_ns,
        )
    between = [n for n in range(number + 1, after) if n in sequence.scans] if has_successor else []
    return Frame(
        frame_id=f"{sequence.name}/{number}",
        scene=sequence.name,
        position=number,
        splits=splits,
        t_ns=_start_ns(manifest, sequence) + scan_time_ns(manifest, number),
        points_path=sequence.scans[number],
        max_points=files.max_points(sequence.scans[number]),
        lidar_token=f"{sequence.name}_{number:06d}",
        T_world_lidar=None if poses is None else poses[number],
        successor_id=f"{sequence.name}/{after}" if has_successor else None,
        sweeps=tuple(
            Sweep(sequence.scans[n], invert_rigid(poses[number]) @ poses[n]) for n in between
        ),
        label_path=sequence.labels.get(number),
        cameras=(camera,),
    )


def _start_ns(manifest: Manifest, sequence: _Sequence) -> int:
    """Time of scan 0: scans have no times, the images do."""
    if not sequence.images:
        return 0
    number, image = next(iter(sequence.images.items()))
    return image.t_ns - scan_time_ns(manifest, number)

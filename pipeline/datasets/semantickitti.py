"""Reader of the KITTI odometry layout: sequences/<seq>/ with velodyne, labels, image_*.

Also ScribbleKITTI (its labels of training scenes lie in `scribbles`) and SemanticPOSS (no images).
A frame's position is its scan number, so frame ids stay the same when files are added. The cameras
of a data set are those of the manifest that have an image anywhere under the root.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from pipeline.geometry import Transform
from pipeline.image import read_size
from pipeline.kitti_calibration import (
    calib_row,
    read_calib,
    read_lidar_poses,
    read_rows,
    split_projection,
)
from pipeline.manifest import Manifest
from pipeline.scan_tree import (
    Scan,
    Tree,
    find_tree,
    frame_name,
    list_scans,
    scan_time_ns,
    scene_splits,
)
from pipeline.types import Camera, Frame, Labels, PointCloud, Sweep

load_image: Callable[[Path, Camera], np.ndarray] = read_camera


@dataclass(frozen=True)
class _Sequence:
    """What lies in one sequence's folders."""

    scans: dict[int, Scan]  # by number, sorted
    images: dict[str, dict[str, str]]  # camera -> stem -> path
    projections: dict[str, Transform]  # camera -> T_cam_lidar
    intrinsics: dict[str, np.ndarray]  # camera -> K
    sizes: dict[str, tuple[int, int]]  # camera -> height, width
    T_world_lidar: np.ndarray | None  # [scans of the sequence, 4, 4]
    times_ns: list[int] | None


def index(root: Path, manifest: Manifest, version: str | None) -> list[Frame]:
    """Return every scan of every sequence, in the order of sequence, then number.

    Args:
        root: folder that holds `sequences` or `dataset/sequences`.
        manifest: folders, cameras, splits, pair gap.
        version: None, the layout has no versions.

    Raises:
        UserError: no sequence here, or calib, poses or times that do not fit the scans.

    Source: PRBonn/semantic-kitti-api (MIT), generate_sequential.py for the poses.
    """
    tree = find_tree(root, manifest, version)
    scans = list_scans(tree, manifest, (".bin",), (".label",))
    odd = [scan.stem for scan in scans if not scan.stem.isdecimal()]
    check(
        not odd,
        f"{root / scans[0].path}: scans must be named by number, got {odd[:3]}; move them away",
    )
    names = list(dict.fromkeys(scan.scene for scan in scans))
    cameras = _cameras(tree, names, manifest)
    sequences = {
        name: _load_sequence(
            tree, manifest, name, cameras, {s.position: s for s in scans if s.scene == name}
        )
        for name in names
    }
    files = PointFiles(root, KITTI_POINT_BYTES)
    frames = []
    for scan, splits in zip(scans, scene_splits(manifest, root, version, scans), strict=True):
        sequence = sequences[scan.scene]
        poses = sequence.T_world_lidar
        successor, sweeps = _onward(sequence, scan.position, manifest.pair_gap)
        frames.append(
            Frame(
                frame_id=frame_name(scan),
                scene=scan.scene,
                position=scan.position,
                splits=splits,
                t_ns=_time_ns(sequence, manifest, scan),
                points_path=scan.path,
                max_points=files.max_points(scan.path),
                lidar_token=f"{scan.scene}_{scan.stem}",
                T_world_lidar=None if poses is None else poses[scan.position],
                successor_id=successor,
                sweeps=sweeps,
                label_path=scan.label_path,
                instance_path=scan.label_path,
                cameras=tuple(_camera(sequence, manifest, camera, scan) for camera in cameras),
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


def _cameras(tree: Tree, names: Sequence[str], manifest: Manifest) -> tuple[str, ...]:
    for choice in (manifest.cameras, manifest.fallback_cameras):
        found = tuple(c for c in choice if any(tree.files(n, c, (".png",)) for n in names))
        if found:
            return found
    return ()


def _load_sequence(
    tree: Tree, manifest: Manifest, name: str, cameras: Sequence[str], scans: dict[int, Scan]
) -> _Sequence:
    path = tree.root / tree.base / name
    last = max(scans, default=-1)
    images = {camera: tree.files(name, camera, (".png",)) for camera in cameras}
    here = [camera for camera in cameras if images[camera]]
    has_poses = manifest.has_poses and (path / "poses.txt").is_file()
    rows = read_calib(path / "calib.txt") if here or has_poses else {}
    T_cam0_lidar = (
        Transform("cam0", "lidar", calib_row(rows, "Tr", path / "calib.txt"))
        if here or has_poses
        else None
    )
    intrinsics, projections = {}, {}
    for camera in here:
        P = calib_row(rows, f"P{camera.rpartition('_')[2]}", path / "calib.txt")
        intrinsics[camera], T_cam_cam0 = split_projection(P)
        projections[camera] = Transform("cam", "cam0", T_cam_cam0) @ T_cam0_lidar
    times = read_rows(path / "times.txt", 1, last) if (path / "times.txt").is_file() else None
    return _Sequence(
        scans=scans,
        images=images,
        projections=projections,
        intrinsics=intrinsics,
        sizes={c: read_size(tree.root / next(iter(images[c].values()))) for c in here},
        T_world_lidar=read_lidar_poses(path / "poses.txt", T_cam0_lidar, last)
        if has_poses
        else None,
        times_ns=None if times is None else np.rint(times[:, 0] * 1e9).astype(np.int64).tolist(),
    )


def _time_ns(sequence: _Sequence, manifest: Manifest, scan: Scan) -> int:
    times = sequence.times_ns
    return scan_time_ns(manifest, scan.position) if times is None else times[scan.position]


def _onward(sequence: _Sequence, t: int, gap: int) -> tuple[str | None, tuple[Sweep, ...]]:
    """The successor's frame id, and the scans strictly between; neither without poses."""
    poses, scans = sequence.T_world_lidar, sequence.scans
    if poses is None or not gap or t + gap not in scans:
        return None, ()
    T_lidar_world = Transform("world", "lidar", poses[t]).inverse()
    between = [number for number in range(t + 1, t + gap) if number in scans]
    return frame_name(scans[t + gap]), tuple(
        Sweep(
            path=scans[number].path,
            T_lidar_sweep=(T_lidar_world @ Transform("world", "sweep", poses[number])).matrix,
        )
        for number in between
    )


def _camera(sequence: _Sequence, manifest: Manifest, camera: str, scan: Scan) -> Camera | None:
    path = sequence.images[camera].get(scan.stem)
    if path is None:
        return None
    height, width = sequence.sizes[camera]
    return Camera(
        name=camera,
        token=f"{scan.scene}_{camera}_{scan.stem}",
        path=path,
        height=height,
        width=width,
        K=sequence.intrinsics[camera],
        T_cam_lidar=sequence.projections[camera].matrix,
        t_ns=_time_ns(sequence, manifest, scan),
    )

"""The index of Waymo: every LiDAR frame of every segment, from key and pose columns alone.

Images and range images are not opened. A component that is there for one segment of a split must
be there for all: a download that stopped half-way is told now, not after hours.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.datasets.waymo.components import (
    CAMERA,
    CAMERAS,
    LASER,
    TIME,
    Segment,
    matrix_of,
    read_rows,
    record_path,
)
from pipeline.errors import check
from pipeline.geometry import Transform, rigid
from pipeline.manifest import Manifest
from pipeline.splits import assign_frame_splits
from pipeline.types import Camera, Frame, Sweep

REQUIRED = ("lidar", "lidar_calibration", "lidar_pose", "vehicle_pose")
OPTIONAL = ("lidar_segmentation", "lidar_camera_projection", "camera_image", "camera_calibration")
# Our camera axes (x right, y down, z forward) from Waymo's (x forward, y left, z up).
AXES = rigid(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.zeros(3))
CAMERA_NAMES = {number: name for name, number in CAMERAS.items()}
INTRINSICS = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")


@dataclass(frozen=True)
class _Recording:
    """What the index needs of one segment."""

    segment: Segment
    T_world_lidar: dict[int, np.ndarray]  # time (us) -> [4, 4], sorted by time
    labeled: frozenset[int]
    num_pixels: int  # bound of a frame's points
    mounts: dict[str, Camera]  # camera -> K, size, distortion; T_cam_lidar without any ego motion
    shots: dict[tuple[int, str], tuple[np.ndarray, int]]  # time, camera -> T_world_vehicle, t_ns


def index(root: Path, manifest: Manifest, version: str | None) -> list[Frame]:
    """Return every frame of every segment: training, validation, testing; by name, then time.

    Args:
        root: folder that holds those of the splits.
        manifest: folders of the splits, cameras in order, pair gap.
        version: which LiDARs and returns.

    Raises:
        UserError: no segment here, a component that is missing (counts and lists), damaged rows.
    """
    recordings = [
        _load(root, segment, str(version), components)
        for segment, components in _find_segments(root, manifest)
    ]
    keys = [(r, time) for r in recordings for time in r.T_world_lidar]
    members = assign_frame_splits(
        manifest,
        [(manifest.split_folders[r.segment.split],) for r, _ in keys],
        [f"{r.segment.name}/{time}" for r, time in keys],
        [time in r.labeled for r, time in keys],
    )
    splits = iter(members)
    return [
        _frame(manifest, recording, position, str(version), next(splits))
        for recording in recordings
        for position in range(len(recording.T_world_lidar))
    ]


def _find_segments(root: Path, manifest: Manifest) -> list[tuple[Segment, frozenset[str]]]:
    """Return the segments with the components that their split has."""
    found = []
    for split in manifest.split_folders:
        components = {c for c in (*REQUIRED, *OPTIONAL) if (root / split / c).is_dir()}
        names = sorted({p.stem for c in components for p in (root / split / c).glob("*.parquet")})
        if not names:
            continue
        needed = (*REQUIRED, *(("camera_calibration",) if "camera_image" in components else ()))
        lacking = [c for c in needed if c not in components]
        check(
            not lacking,
            f"{root / split}: must hold the components {', '.join(needed)}, got no "
            f"{', '.join(lacking)}; download them",
        )
        segments = [Segment(split, name) for name in names]
        paths = [s.path(c) for c in sorted(components) for s in segments]
        missing = [path for path in paths if not (root / path).is_file()]
        check(
            not missing,
            f"{root}: components must be there for every segment, got {len(missing)} missing: "
            f"{', '.join(missing[:10])}{' ...' if len(missing) > 10 else ''}; download them, "
            "or remove what else there is of these segments",
        )
        found += [(segment, frozenset(components)) for segment in segments]
    wanted = " or ".join(f"{split}/lidar/*.parquet" for split in manifest.split_folders)
    check(
        bool(found),
        f"{root}: must hold {wanted}, got none; correct the root (to get the data: "
        f"{manifest.how_to_get})",
    )
    return found


def _load(root: Path, segment: Segment, version: str, components: frozenset[str]) -> _Recording:
    poses = read_rows(root, segment, "vehicle_pose", ("world_from_vehicle.transform",))
    T_world_vehicle = {
        time: matrix_of(poses, "world_from_vehicle.transform", row)
        for row, time in enumerate(poses[TIME].to_pylist())
    }
    returns = ("range_image_return1", "range_image_return2")[: 1 + version.endswith("-both")]
    lidar = read_rows(root, segment, "lidar", tuple(f"{name}.shape" for name in returns))
    times = sorted(set(lidar[TIME].to_pylist()))
    check(bool(times), f"{root / segment.path('lidar')}: must have a frame, got no row")
    lasers = {1} if version.startswith("top") else set(lidar[LASER].to_pylist())
    _check_rows(root, segment, components, times, lasers)
    labeled: frozenset[int] = frozenset()
    if "lidar_segmentation" in components:
        labeled = frozenset(read_rows(root, segment, "lidar_segmentation", ())[TIME].to_pylist())
    has_cameras = {"camera_image", "camera_calibration"} <= components
    mounts = _read_mounts(root, segment) if has_cameras else {}
    shots = _read_shots(root, segment) if has_cameras else {}
    lacking = sorted({camera for _, camera in shots} - set(mounts))
    check(
        not lacking,
        f"{root / segment.path('camera_calibration')}: must have camera {', '.join(lacking)}, "
        f"which has images, got {', '.join(mounts) or 'none'}; download it again",
    )
    return _Recording(
        segment=segment,
        T_world_lidar={time: T_world_vehicle[time] for time in times},
        labeled=labeled,
        num_pixels=_count_pixels(lidar, returns, version.startswith("top")),
        mounts=mounts,
        shots=shots,
    )


def _check_rows(
    root: Path, segment: Segment, components: frozenset[str], times: list[int], lasers: set[int]
) -> None:
    """Refuse components that lack a frame or a LiDAR that `lidar` has; only keys are read."""
    for component in ("vehicle_pose", "lidar_pose", "lidar_camera_projection"):
        path = root / segment.path(component)
        rows = read_rows(root, segment, component, ()) if component in components else None
        lacking = [] if rows is None else sorted(set(times) - set(rows[TIME].to_pylist()))
        check(
            not lacking,
            f"{path}: must have every frame of lidar, got {len(lacking)} without, the first "
            f"{lacking[:1]}; download it again",
        )
    calibrated = read_rows(root, segment, "lidar_calibration", ())[LASER].to_pylist()
    unknown = sorted(lasers - set(calibrated))
    check(
        not unknown,
        f"{root / segment.path('lidar_calibration')}: must have laser "
        f"{', '.join(map(str, unknown))} of lidar, got {calibrated or 'none'}; download it again",
    )


def _count_pixels(lidar: pa.Table, returns: tuple[str, ...], top_only: bool) -> int:
    largest: dict[tuple[int, str], int] = {}
    for row, laser in enumerate(lidar[LASER].to_pylist()):
        for name in returns:
            shape = lidar[f"{name}.shape"][row].as_py()
            if shape and (laser == 1 or not top_only):
                pixels = shape[0] * shape[1]
                largest[laser, name] = max(pixels, largest.get((laser, name), 0))
    return sum(largest.values())


def _read_mounts(root: Path, segment: Segment) -> dict[str, Camera]:
    columns = (*(f"intrinsic.{name}" for name in INTRINSICS), "extrinsic.transform")
    table = read_rows(root, segment, "camera_calibration", (*columns, "width", "height"))
    mounts = {}
    for row, number in enumerate(table[CAMERA].to_pylist()):
        if number not in CAMERA_NAMES:  # 6 to 8 belong to another release
            continue
        values = [table[f"intrinsic.{name}"][row].as_py() for name in INTRINSICS]
        f_u, f_v, c_u, c_v, *distortion = values
        T_vehicle_cam = Transform("egoC", "cam", matrix_of(table, "extrinsic.transform", row))
        mounts[CAMERA_NAMES[number]] = Camera(
            name=CAMERA_NAMES[number],
            token="",
            path="",
            height=table["height"][row].as_py(),
            width=table["width"][row].as_py(),
            # Waymo's pixel 0 begins at 0, ours has its center there
            K=np.array([[f_u, 0, c_u - 0.5], [0, f_v, c_v - 0.5], [0, 0, 1.0]]),
            T_cam_lidar=AXES @ T_vehicle_cam.inverse().matrix,
            t_ns=0,
            distortion=tuple(distortion),
        )
    return mounts


def _read_shots(root: Path, segment: Segment) -> dict[tuple[int, str], tuple[np.ndarray, int]]:
    table = read_rows(root, segment, "camera_image", ("pose.transform", "pose_timestamp"))
    times, numbers = table[TIME].to_pylist(), table[CAMERA].to_pylist()
    seconds = table["pose_timestamp"].to_pylist()
    return {
        (times[row], CAMERA_NAMES[number]): (
            matrix_of(table, "pose.transform", row),
            round(seconds[row] * 1e9),
        )
        for row, number in enumerate(numbers)
        if number in CAMERA_NAMES
    }


def _frame(
    manifest: Manifest, recording: _Recording, position: int, version: str, splits: tuple[str, ...]
) -> Frame:
    times = list(recording.T_world_lidar)
    time, after = times[position], position + manifest.pair_gap
    has_successor = manifest.pair_gap > 0 and after < len(times)
    segment, T_world_lidar = recording.segment, recording.T_world_lidar[time]
    T_lidar_world = Transform("world", "lidar", T_world_lidar).inverse()
    between = times[position + 1 : after] if has_successor else []
    labels = record_path(segment.path("lidar_segmentation"), time, version)
    return Frame(
        frame_id=f"{segment.name}/{position}",
        scene=segment.name,
        position=position,
        splits=splits,
        t_ns=time * 1000,
        points_path=record_path(segment.path("lidar"), time, version),
        max_points=recording.num_pixels,
        lidar_token=f"{segment.name}_{time}",
        T_world_lidar=T_world_lidar,
        successor_id=f"{segment.name}/{after}" if has_successor else None,
        sweeps=tuple(
            Sweep(
                record_path(segment.path("lidar"), t, version),
                (T_lidar_world @ Transform("world", "sweep", recording.T_world_lidar[t])).matrix,
            )
            for t in between
        ),
        label_path=labels if time in recording.labeled else None,
        instance_path=labels if time in recording.labeled else None,
        cameras=tuple(_camera(recording, time, name) for name in manifest.cameras),
    )


def _camera(recording: _Recording, time: int, name: str) -> Camera | None:
    """The camera of one frame, through the vehicle's pose at the image's own time."""
    mount, shot = recording.mounts.get(name), recording.shots.get((time, name))
    if mount is None or shot is None:
        return None
    T_world_egoC, t_ns = shot
    T_cam_egoC = Transform("cam", "egoC", mount.T_cam_lidar)
    T_egoC_world = Transform("world", "egoC", T_world_egoC).inverse()
    T_world_lidar = Transform("world", "lidar", recording.T_world_lidar[time])
    return replace(
        mount,
        token=f"{recording.segment.name}_{time}_{name}",
        path=record_path(recording.segment.path("camera_image"), time, CAMERAS[name]),
        T_cam_lidar=(T_cam_egoC @ T_egoC_world @ T_world_lidar).matrix,
        t_ns=t_ns,
    )

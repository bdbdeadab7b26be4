"""Reader of the nuScenes layout: JSON tables in, frames with every transform multiplied out.

LiDAR and cameras fire at different times, so a camera's transform goes through two ego poses; using
one shifts points by tens of centimeters at speed. No devkit: its tables alone take 5 GB.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import check
from pipeline.formats import (
    NUSCENES_POINT_BYTES,
    PointFiles,
    read_camera,
    read_nuscenes_labels,
    read_nuscenes_panoptic,
    read_nuscenes_points,
)
from pipeline.geometry import Transform
from pipeline.json_tables import follow
from pipeline.manifest import Manifest
from pipeline.nuscenes_tables import Shot, Tables, load_tables, numbering
from pipeline.splits import assign_splits, scene_lists
from pipeline.types import Camera, Frame, Labels, PointCloud, Sweep

load_image: Callable[[Path, Camera], np.ndarray] = read_camera


def index(root: Path, manifest: Manifest, version: str | None) -> list[Frame]:
    """Return every keyframe, in the order of scene.json, then time.

    Args:
        root: folder that holds `samples` and the version folder.
        manifest: cameras in order, splits, pair gap.
        version: folder of the tables, as in 'v1.0-trainval'.

    Raises:
        UserError: tables missing, broken or dangling; point files missing (counts and lists them).

    Source: schema of nutonomy/nuscenes-devkit (docs/schema_nuscenes.md, Apache-2.0).
    """
    tables = load_tables(root / str(version), manifest.cameras)
    scans = {name: [tables.lidar_of(s) for s in samples] for name, samples in tables.scenes.items()}
    splits = iter(
        assign_splits(
            manifest,
            scene_lists(manifest, root, version),
            list(scans),
            [name for name, lidars in scans.items() for _ in lidars],
            [lidar.path for lidars in scans.values() for lidar in lidars],
        )
    )
    files = PointFiles(root, NUSCENES_POINT_BYTES)
    frames: list[Frame] = []
    for name, lidars in scans.items():
        T_world_lidar = tables.T_world_sensor(lidars, "egoL", "lidar")
        images = [tables.keyframes[sample] for sample in tables.scenes[name]]
        cameras = _cameras(tables, manifest.cameras, images, T_world_lidar)
        ahead = [*lidars[manifest.pair_gap :], *[None] * len(lidars)][: len(lidars)]
        sweeps = _sweeps(tables, lidars, ahead, T_world_lidar)
        for position, lidar in enumerate(lidars):
            frames.append(
                Frame(
                    frame_id=f"{name}/{position}",
                    scene=name,
                    position=position,
                    splits=next(splits),
                    t_ns=lidar.t_ns,
                    points_path=lidar.path,
                    max_points=files.max_points(lidar.path),
                    lidar_token=lidar.token,
                    T_world_lidar=T_world_lidar.matrix[position],
                    successor_id=f"{name}/{position + manifest.pair_gap}"
                    if ahead[position]
                    else None,
                    sweeps=sweeps[position],
                    label_path=tables.label_paths.get(lidar.token),
                    instance_path=tables.instance_paths.get(lidar.token),
                    cameras=cameras[position],
                )
            )
    files.check_complete(f"unpack the sensor archives of {version} there")
    return frames


def load_points(root: Path, path: str) -> PointCloud:
    """Return a scan in its own sensor frame; intensity 0..255, ring from the file.

    Raises:
        UserError: the file is missing, cut short or damaged.
    """
    return read_nuscenes_points(root / path)


def load_labels(root: Path, frame: Frame, num_points: int) -> Labels | None:
    """Return lidarseg ids in the manifest's numbering and panoptic instances; None without labels.

    Raises:
        UserError: a label file is missing or not one label per point.
    """
    if frame.label_path is None:
        return None
    path = root / frame.label_path
    installed = read_nuscenes_labels(path, num_points)
    semantic = numbering(root / path.parent.name / "category.json")[installed]
    if frame.instance_path is None:
        return Labels(semantic)
    return Labels(semantic, read_nuscenes_panoptic(root / frame.instance_path, num_points))


def _cameras(
    tables: Tables,
    names: Sequence[str],
    images: Sequence[dict[str, Shot]],
    T_world_lidar: Transform,
) -> list[tuple[Camera | None, ...]]:
    """Return the cameras of every frame of a scene, None where a frame lacks one."""
    places = [
        (position, name, shots[name])
        for position, shots in enumerate(images)
        for name in names
        if name in shots
    ]
    T_cam_world = tables.T_world_sensor([shot for *_, shot in places], "egoC", "cam").inverse()
    at_lidar_time = T_world_lidar.matrix[[position for position, *_ in places]].reshape(-1, 4, 4)
    T_cam_lidar = (T_cam_world @ Transform("world", "lidar", at_lidar_time)).matrix
    intrinsics = {shot.sensor: name for _, name, shot in places}
    intrinsics = {sensor: _intrinsic(tables, sensor, name) for sensor, name in intrinsics.items()}
    slot = {name: k for k, name in enumerate(names)}
    found: list[list[Camera | None]] = [[None] * len(names) for _ in images]
    for (position, name, shot), matrix in zip(places, T_cam_lidar, strict=True):
        check(
            all(isinstance(side, int) and side > 0 for side in (shot.height, shot.width)),
            f"sample_data.json record {shot.token}: height and width of {name} must be positive, "
            f"got {shot.height} and {shot.width}; unpack the metadata archive again",
        )
        found[position][slot[name]] = Camera(
            name=name,
            token=shot.token,
            path=shot.path,
            height=shot.height,
            width=shot.width,
            K=intrinsics[shot.sensor],
            T_cam_lidar=matrix,
            t_ns=shot.t_ns,
        )
    return [tuple(cameras) for cameras in found]


def _intrinsic(tables: Tables, sensor: str, name: str) -> np.ndarray:
    given = tables.intrinsics[sensor]
    try:
        K = np.array(given, np.float64)
    except (ValueError, TypeError):
        K = np.empty(0)
    check(
        K.shape == (3, 3) and bool(np.isfinite(K).all()),
        f"calibrated_sensor.json record {sensor}: camera_intrinsic of {name} must be 3x3, got "
        f"{given}; unpack the metadata archive again",
    )
    return K


def _sweeps(
    tables: Tables,
    lidars: Sequence[Shot],
    ahead: Sequence[Shot | None],
    T_world_lidar: Transform,
) -> list[tuple[Sweep, ...]]:
    """Return the sweeps between each scan of a scene and its successor, in the scan's frame."""
    between = [
        _shots_between(tables, lidar, successor) if successor else []
        for lidar, successor in zip(lidars, ahead, strict=True)
    ]
    shots = [shot for found in between for shot in found]
    positions = np.repeat(np.arange(len(lidars)), [len(found) for found in between])
    T_lidar_world = Transform("lidar", "world", T_world_lidar.inverse().matrix[positions])
    T_lidar_sweep = (T_lidar_world @ tables.T_world_sensor(shots, "egoS", "sweep")).matrix
    sweeps = map(Sweep, (shot.path for shot in shots), T_lidar_sweep)
    return [tuple(itertools.islice(sweeps, len(found))) for found in between]


def _shots_between(tables: Tables, lidar: Shot, successor: Shot) -> list[Shot]:
    found = []
    shot = lidar
    while shot.next:  # a set without sweeps ends the chain at every keyframe
        before, shot = (
            shot,
            follow(tables.scans, shot.next, "sample_data", "sample_data", shot.token, "next"),
        )
        if shot.token == successor.token:
            break
        check(
            before.t_ns < shot.t_ns < successor.t_ns,
            f"sample_data.json record {before.token}: next must lie between it and keyframe "
            f"{successor.token} in time, got {shot.token}; unpack the metadata archive again",
        )
        found.append(shot)
    return found

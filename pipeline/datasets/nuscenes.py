"""Reader of the nuScenes layout: JSON tables in, frames with every transform multiplied out.

LiDAR and cameras fire at different times, so a camera's transform goes through two ego poses; using
one shifts points by tens of centimeters at speed. No devkit: its tables alone take 5 GB.
"""

from collections.abc import Callable
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
    frames = []
    for name, lidars in scans.items():
        for position, lidar in enumerate(lidars):
            after = position + manifest.pair_gap
            successor = lidars[after] if after < len(lidars) else None
            images = tables.keyframes[tables.scenes[name][position]]
            T_world_lidar = tables.T_world_sensor(lidar, "egoL", "lidar")
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
                    T_world_lidar=T_world_lidar.matrix,
                    successor_id=f"{name}/{after}" if successor else None,
                    sweeps=_sweeps(tables, lidar, successor, T_world_lidar),
                    label_path=tables.label_paths.get(lidar.token),
                    instance_path=tables.instance_paths.get(lidar.token),
                    cameras=tuple(
                        _camera(tables, camera, images[camera], T_world_lidar)
                        if camera in images
                        else None
                        for camera in manifest.cameras
                    ),
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


def _camera(tables: Tables, name: str, shot: Shot, T_world_lidar: Transform) -> Camera:
    K = np.array(tables.intrinsics[shot.sensor], np.float64)
    check(
        K.shape == (3, 3),
        f"calibrated_sensor.json record {shot.sensor}: camera_intrinsic of {name} must be 3x3, got "
        f"{list(K.shape)}; unpack the metadata archive again",
    )
    check(
        shot.height > 0 and shot.width > 0,
        f"sample_data.json record {shot.token}: height and width of {name} must be positive, got "
        f"{shot.height} and {shot.width}; unpack the metadata archive again",
    )
    T_cam_world = tables.T_world_sensor(shot, "egoC", "cam").inverse()
    T_cam_lidar = T_cam_world @ T_world_lidar
    return Camera(
        name=name,
        token=shot.token,
        path=shot.path,
        height=shot.height,
        width=shot.width,
        K=K,
        T_cam_lidar=T_cam_lidar.matrix,
        t_ns=shot.t_ns,
    )


def _sweeps(
    tables: Tables, lidar: Shot, successor: Shot | None, T_world_lidar: Transform
) -> tuple[Sweep, ...]:
    if successor is None:
        return ()
    T_lidar_world = T_world_lidar.inverse()
    sweeps = []
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
        T_lidar_sweep = T_lidar_world @ tables.T_world_sensor(shot, "egoS", "sweep")
        sweeps.append(Sweep(shot.path, T_lidar_sweep.matrix))
    return tuple(sweeps)

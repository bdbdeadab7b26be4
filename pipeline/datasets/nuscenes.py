"""Reader of the nuScenes layout: JSON tables in, index rows with every transform multiplied out.

LiDAR and cameras fire at different times, so a camera's transform goes through two ego poses; using
one shifts points by tens of centimeters at speed. No devkit: its tables alone take 5 GB. Rows stay
columns from the tables to the index; as objects they took 15 s more at full size.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.formats import (
    NUSCENES_POINT_BYTES,
    PointFiles,
    read_camera,
    read_nuscenes_labels,
    read_nuscenes_panoptic,
    read_nuscenes_points,
)
from pipeline.index_table import matrices, split_bits, table_of
from pipeline.manifest import Manifest
from pipeline.nuscenes_columns import camera_column, sweep_column
from pipeline.nuscenes_tables import load_tables, numbering
from pipeline.splits import assign_splits, scene_lists, split_names
from pipeline.types import Camera, Frame, Labels, PointCloud

load_image: Callable[[Path, Camera], np.ndarray] = read_camera


def index(root: Path, manifest: Manifest, version: str | None) -> pa.Table:
    """Return every keyframe, in the order of scene.json, then time, as rows of the index.

    Args:
        root: folder that holds `samples` and the version folder.
        manifest: cameras in order, splits, pair gap.
        version: folder of the tables, as in 'v1.0-trainval'.

    Raises:
        UserError: tables missing, broken or dangling; point files missing (counts and lists them).

    Source: schema of nutonomy/nuscenes-devkit (docs/schema_nuscenes.md, Apache-2.0).
    """
    tables = load_tables(root / str(version), manifest.cameras)
    lidars = tables.lidars
    names = [name for name, samples in tables.scenes.items() for _ in samples]
    positions = [k for samples in tables.scenes.values() for k in range(len(samples))]
    paths = tables.shots["filename"].take(pa.array(lidars)).to_pylist()
    tokens = tables.shots["token"].take(pa.array(lidars)).to_pylist()
    members = scene_lists(manifest, root, version)
    splits = assign_splits(manifest, members, list(tables.scenes), names, paths)
    rows, gap = np.arange(len(names)), manifest.pair_gap
    counts = [len(samples) for samples in tables.scenes.values()]
    lengths = np.repeat(np.array(counts, int), counts)
    successor = np.where(np.array(positions, int) + gap < lengths, rows + gap, -1)
    files = PointFiles(root, NUSCENES_POINT_BYTES)
    T_world_lidar = tables.T_world_sensor(lidars, "egoL", "lidar")
    columns = {
        "frame_id": [f"{name}/{k}" for name, k in zip(names, positions, strict=True)],
        "scene": names,
        "position": positions,
        "splits": split_bits(splits, split_names(manifest)),
        "t_ns": tables.t_ns[lidars],
        "points_path": paths,
        "max_points": [files.max_points(path) for path in paths],
        "lidar_token": tokens,
        "T_world_lidar": matrices(T_world_lidar.matrix),
        "successor": successor,
        "sweeps": sweep_column(tables, lidars, successor, T_world_lidar),
        "label_path": [tables.label_paths.get(token) for token in tokens],
        "instance_path": [tables.instance_paths.get(token) for token in tokens],
        "cameras": camera_column(tables, manifest.cameras, T_world_lidar),
    }
    files.check_complete(f"unpack the sensor archives of {version} there")
    return table_of(columns)


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

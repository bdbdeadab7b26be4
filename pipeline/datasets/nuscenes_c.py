"""Reader of nuScenes-C (Robo3D): nuScenes' validation scans under corruptions, one scene each.

In: `<corruption>/<severity>/` with samples and lidarseg, and the clean tables of nuScenes for
tokens, times and poses. Labels are those of the corrupted folder: corruptions delete, reorder and
relabel points. Their numbering is category.json's as released, so none is looked up.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.formats import (
    NUSCENES_POINT_BYTES,
    PointFiles,
    read_camera,
    read_nuscenes_labels,
    read_nuscenes_points,
    read_wide_kitti_points,
)
from pipeline.manifest import Manifest, load_manifest
from pipeline.nuscenes_tables import Tables, load_tables
from pipeline.types import Camera, Frame, Labels, PointCloud

CLEAN = "nuscenes"
SCANS = "samples/LIDAR_TOP"

load_image: Callable[[Path, Camera], np.ndarray] = read_camera


def index(root: Path, manifest: Manifest, version: str | None) -> list[Frame]:
    """Return the validation keyframes of every corruption; scenes are `fog-light/scene-0003`.

    Args:
        root: folder with the corruptions; the tables may lie in it, else in NUSCENES_ROOT.
        manifest: its splits name the corruptions and severities, in order.
        version: which tables of nuScenes.

    Raises:
        UserError: no corruption here, no tables, or scans that are missing (counts and lists them).

    Source: layout from ldkong1205/Robo3D docs/DATA_PREPARE.md.
    """
    tables = load_tables(_find_tables(root, str(version)), ())
    chosen = set(load_manifest(CLEAN).scene_lists["val"])
    files = PointFiles(root, NUSCENES_POINT_BYTES)
    counts = [len(samples) for samples in tables.scenes.values()]
    starts = dict(zip(tables.scenes, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
    frames = []
    for name, folder in _find_corruptions(root, manifest).items():
        for scene in (scene for scene in tables.scenes if scene in chosen):
            frames += _scene_frames(tables, files, name, folder, scene, starts[scene])
    files.check_complete("unpack the archives of these corruptions again")
    return frames


def load_points(root: Path, path: str) -> PointCloud:
    """Return a scan in its own sensor frame; intensity as stored, which crosstalk may push below 0.

    The snow scripts write 0, 1, 2 over the ring, so there it is unknown.

    Raises:
        UserError: the file is missing, cut short or damaged.
    """
    read = read_wide_kitti_points if "snow" in Path(path).parts else read_nuscenes_points
    return read(root / path)


def load_labels(root: Path, frame: Frame, num_points: int) -> Labels | None:
    """Return lidarseg ids, and 41, 42, 43 for points that a corruption made.

    Raises:
        UserError: the file is missing or not one label per point.
    """
    return Labels(read_nuscenes_labels(root / str(frame.label_path), num_points))


def _find_tables(root: Path, version: str) -> Path:
    places = [root, *([Path(os.environ["NUSCENES_ROOT"])] if "NUSCENES_ROOT" in os.environ else [])]
    for place in places:
        if (place / version).is_dir():
            return place / version
    raise UserError(
        f"{root}: the tables of nuScenes must be in {version} here or below NUSCENES_ROOT, got "
        f"neither ({', '.join(map(str, places))}); set NUSCENES_ROOT to the clean data set"
    )


def _find_corruptions(root: Path, manifest: Manifest) -> dict[str, str]:
    """Return 'fog-light' -> its folder relative to the root, in the manifest's order."""
    bases = manifest.folders.bases
    for base in bases:
        found = {}
        for name in manifest.scene_lists:
            folder = Path(base, *name.rsplit("-", 1))
            if "-" in name and (root / folder / SCANS).is_dir():
                found[name] = str(folder)
        if found:
            return found
    raise UserError(
        f"{root}: must hold <corruption>/<severity>/{SCANS}, such as fog/light/{SCANS}, got none; "
        f"correct the root (to get the data: {manifest.how_to_get})"
    )


def _scene_frames(
    tables: Tables, files: PointFiles, name: str, folder: str, scene: str, first: int
) -> list[Frame]:
    """Return the frames of a scene, whose scan is the `first` of all keyframes."""
    lidars = tables.lidars[first : first + len(tables.scenes[scene])]
    T_world_lidar = tables.T_world_sensor(lidars, "egoL", "lidar").matrix
    shots = tables.shots.select(["token", "filename"]).take(pa.array(lidars)).to_pylist()
    frames = []
    for position, shot in enumerate(shots):
        token = shot["token"]
        path = f"{folder}/{SCANS}/{Path(shot['filename']).name}"
        label = Path(tables.label_paths.get(token, f"{token}_lidarseg.bin")).name
        frames.append(
            Frame(
                frame_id=f"{name}/{scene}/{position}",
                scene=f"{name}/{scene}",
                position=position,
                splits=("val", name),
                t_ns=int(tables.t_ns[lidars[position]]),
                points_path=path,
                max_points=files.max_points(path),
                lidar_token=f"{name}_{token}",
                T_world_lidar=T_world_lidar[position],
                successor_id=None,
                label_path=f"{folder}/lidarseg/v1.0-trainval/{label}",
            )
        )
    return frames

"""Reader of plain scans with labels: SynLiDAR, DAPS-3D, Synth4D. No cameras, no poses.

Scans are KITTI records (.bin, labels .label) or arrays (.npy). Where the manifest has frame lists
(Synth4D), those say which scan trains; else its scene lists do. A scan without labels stays in the
index and out of every labeled split.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.formats import KITTI_POINT_BYTES, read_camera, read_kitti_labels, read_kitti_points
from pipeline.manifest import Manifest
from pipeline.npy import npy_shape, read_npy_labels, read_npy_points
from pipeline.scan_tree import Scan, find_tree, list_scans, plain_frames
from pipeline.splits import read_masks
from pipeline.types import Camera, Frame, Labels, PointCloud

load_image: Callable[[Path, Camera], np.ndarray] = read_camera


def index(root: Path, manifest: Manifest, version: str | None) -> list[Frame]:
    """Return every scan of every scene, in the order of scene, then number.

    Args:
        root: folder of the data set.
        manifest: folders and splits.
        version: folder in which this version's scenes lie; None where the set has no versions.

    Raises:
        UserError: no scan here, or no scene that is in a split.
    """
    tree = find_tree(root, manifest, version)
    scans = list_scans(tree, manifest, (".bin", ".npy"), (".label", ".npy"))
    masks = read_masks(manifest) if manifest.frame_lists else {}

    def listed(scan: Scan) -> tuple[str, ...]:
        mask = masks.get(scan.scene)
        return () if mask is None else ("train",) if mask >> scan.position & 1 else ("val",)

    own = listed if manifest.frame_lists else None
    return plain_frames(root, manifest, version, scans, own, _max_points)


def load_points(root: Path, path: str) -> PointCloud:
    """Return a scan in its own sensor frame, raw intensity, rings unknown.

    Raises:
        UserError: the file is missing, cut short or damaged.
    """
    return read_npy_points(root / path) if path.endswith(".npy") else read_kitti_points(root / path)


def load_labels(root: Path, frame: Frame, num_points: int) -> Labels | None:
    """Return semantic ids, and instance ids where the file is a .label; None without labels.

    Raises:
        UserError: the file is missing or not one label per point.
    """
    if frame.label_path is None:
        return None
    read = read_npy_labels if frame.label_path.endswith(".npy") else read_kitti_labels
    return read(root / frame.label_path, num_points)


def _max_points(path: Path) -> int:
    if path.suffix == ".npy":
        return (npy_shape(path) or (0,))[0]
    return path.stat().st_size // KITTI_POINT_BYTES

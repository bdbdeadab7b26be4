"""Reader of SemanticSTF: single scans of fog, snow and rain in train/, val/ and test/.

A scan's record is 20 bytes; read as 16 it gives garbage without an error whenever the size happens
to fit, so the size is checked. The weathers of val/val.txt are splits of their own.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.errors import check
from pipeline.formats import (
    NUSCENES_POINT_BYTES,
    read_camera,
    read_kitti_labels,
    read_wide_kitti_points,
)
from pipeline.manifest import Manifest
from pipeline.scan_tree import Scan, Tree, find_tree, list_scans, plain_frames
from pipeline.types import Camera, Frame, Labels, PointCloud

WEATHERS = ("dense_fog", "light_fog", "snow", "rain")

load_image: Callable[[Path, Camera], np.ndarray] = read_camera


def index(root: Path, manifest: Manifest, version: str | None) -> list[Frame]:
    """Return every scan, in the order of test, train, val, then file name.

    Args:
        root: folder that holds `train`, `val` and `test`.
        manifest: folders and splits.
        version: None, the layout has no versions.

    Raises:
        UserError: no scan here, or a line of val.txt that is not `path,weather`.

    Source: layout from xiaoaoran/SemanticSTF (README, PointDR/core/datasets/semantic_stf.py).
    """
    tree = find_tree(root, manifest, version)
    scans = list_scans(tree, manifest, (".bin",), (".label",))
    weathers = _read_weathers(tree)

    def own(scan: Scan) -> tuple[str, ...]:
        name = scan.scene if scan.scene in manifest.scene_lists else None
        weather = weathers.get(scan.stem) if name == "val" else None
        return tuple(split for split in (name, weather) if split)

    def count(path: Path) -> int:
        return path.stat().st_size // NUSCENES_POINT_BYTES

    return plain_frames(root, manifest, version, scans, own, count)


def load_points(root: Path, path: str) -> PointCloud:
    """Return a scan in its own sensor frame; intensity 0..255, rings unknown.

    Raises:
        UserError: the file is missing, cut short or damaged.
    """
    return read_wide_kitti_points(root / path)


def load_labels(root: Path, frame: Frame, num_points: int) -> Labels | None:
    """Return semantic ids 0..20; None for a frame without labels.

    Raises:
        UserError: the file is missing or not one label per point.
    """
    if frame.label_path is None:
        return None
    return Labels(read_kitti_labels(root / frame.label_path, num_points).semantic)


def _read_weathers(tree: Tree) -> dict[str, str]:
    """Return stem -> weather of the validation scans; empty without val.txt."""
    path = tree.root / tree.base / "val" / "val.txt"
    if not path.is_file():
        return {}
    weathers = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if line.strip():
            scan, _, weather = (part.strip() for part in line.rpartition(","))
            check(
                bool(scan) and weather in WEATHERS,
                f"{path}: line {number} must be 'path,weather' with one of {', '.join(WEATHERS)}, "
                f"got '{line.strip()[:60]}'; copy it again",
            )
            weathers[Path(scan).stem] = weather
    return weathers

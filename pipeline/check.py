"""Look at a data set before work starts: what is worth knowing in lines, and what it shows in PNG.

In: an index and the recordings. Out: remarks, and pages drawn straight from the recordings, no
store needed: points over the images (is the calibration right?) and labels from above (the map?).
"""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipeline import pictures
from pipeline.datasets.table import LAYOUTS
from pipeline.geometry import store_pixels, store_size
from pipeline.image import resize_image
from pipeline.index import Index
from pipeline.manifest import Manifest, load_manifest
from pipeline.projection import project_with_depth
from pipeline.types import Camera, PointCloud


def remarks(index: Index) -> list[str]:
    """Return what is worth knowing and may be meant so: counts, absent labels, images, poses."""
    manifest = load_manifest(index.dataset)
    lines = []
    for split, wanted in manifest.expected_counts(index.version).items():
        found = int(index.split_mask(split).sum())
        if found != wanted:
            unsure = " (a count nobody here verified)" if "counts" in manifest.unverified else ""
            lines.append(
                f"split '{split}' of a complete copy has {wanted} frames{unsure}, here {found}"
            )
    num_labeled = len(index) - index.table["label_path"].null_count
    if num_labeled < len(index):
        lines.append(f"{num_labeled} of {len(index)} frames have labels")
    if not index.cameras:
        lines.append("no cameras, so no superpixels: usable for probing and fine-tuning")
    elif absent := pc.list_flatten(index.table["cameras"]).null_count:
        lines.append(f"{absent} of {len(index) * len(index.cameras)} camera images are absent")
    if not index.has_pairs:
        lines.append("no pairs of frames with poses, so no segments")
    elif (index.successor < 0).all():
        lines.append("no frame has a successor, so segments will be empty")
    return lines


def draw_check(index: Index, root: Path, out: Path, count: int) -> list[Path]:
    """Write pages of frames spread over the data set and return their paths.

    Frames with labels and images are preferred, since they show most.

    Args:
        index: of the data set.
        root: of its recordings.
        out: folder of the pages.
        count: frames to draw, >= 1.

    Raises:
        UserError: a file of a chosen frame cannot be read.
    """
    manifest = load_manifest(index.dataset)
    reader = LAYOUTS.load(manifest.layout)
    paths = []
    for row in _choose(index, count).tolist():
        frame = index.frame(row)
        cloud = reader.load_points(root, frame.points_path)
        pages = {}
        cameras = [camera for camera in frame.cameras if camera is not None]
        if cameras:
            images = [reader.load_image(root, camera) for camera in cameras]
            pages["projections"] = _points_over_images(cameras, images, cloud, index.store_scale)
        labels = reader.load_labels(root, frame, len(cloud.points))
        if labels is not None:
            pages["labels"] = pictures.labels_page(
                cloud.points, *_colors(manifest, labels.semantic), title=frame.frame_id
            )
        for name, page in pages.items():
            path = out / f"check-row{row:06d}-{name}.png"
            pictures.write_page(path, page)
            paths.append(path)
    return paths


def _choose(index: Index, count: int) -> np.ndarray:
    """Rows to draw [<= count]: of those with a label and an image, else of those with either."""
    labeled = np.asarray(index.table["label_path"].is_valid())
    seeing = np.zeros(len(index), bool)
    if index.cameras:
        cameras = pc.list_flatten(index.table["cameras"])
        seeing = np.asarray(cameras.is_valid()).reshape(len(index), -1).any(axis=1)
    choices = (labeled & seeing, labeled, seeing, np.ones(len(index), bool))
    rows = next(np.flatnonzero(mask) for mask in choices if mask.any())
    return np.unique(rows[np.linspace(0, len(rows) - 1, count).round().astype(int)])


def _points_over_images(
    cameras: list[Camera], images: list[np.ndarray], cloud: PointCloud, scale: float
) -> np.ndarray:
    shown, pixels, depths = [], [], []
    for camera, image in zip(cameras, images, strict=True):
        height, width = store_size(camera.height, camera.width, scale)
        uv, depth_cam = project_with_depth(cloud.points, camera)
        uv = uv.astype(np.int64)
        seen = uv[:, 0] >= 0
        uv[seen, 0] = store_pixels(uv[seen, 0], camera.width, width)
        uv[seen, 1] = store_pixels(uv[seen, 1], camera.height, height)
        shown.append(resize_image(image, height, width))
        pixels.append(uv)
        depths.append(depth_cam)
    return pictures.projection_page(shown, pixels, depths, [camera.name for camera in cameras])


def _colors(manifest: Manifest, semantic: np.ndarray) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return train ids [N] uint8, class names, and their colors [K, 3] uint8."""
    colors = np.array([manifest.colors[name] for name in manifest.classes], np.uint8)
    return manifest.label_map()[semantic], list(manifest.classes), colors

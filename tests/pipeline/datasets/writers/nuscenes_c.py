"""nuScenes-C: the city's tables under names of nuScenes, and two corruptions of its scans."""

import shutil
from pathlib import Path

import numpy as np
import orjson

from pipeline.datasets import nuscenes
from pipeline.index_table import to_frames
from pipeline.manifest import Manifest, load_manifest
from pipeline.splits import split_names
from tests.pipeline.datasets.writers.drive import Written, put


def write_nuscenes_c(root: Path, city: Path, manifest: Manifest) -> list[Written]:
    """Write fog-light (points relabeled 41) and snow-heavy (points gone, ring overwritten)."""
    (root / "v1.0-mini").mkdir(parents=True)
    for path in (city / "v1.0-mini").glob("*.json"):
        shutil.copy(path, root / "v1.0-mini")
    path = root / "v1.0-mini/scene.json"
    rows = orjson.loads(path.read_bytes())
    for row, name in zip(rows, ("scene-0001", "scene-0003"), strict=True):  # train, val
        row["name"] = name
    path.write_bytes(orjson.dumps(rows))
    clean = load_manifest("synthetic")
    frames = to_frames(nuscenes.index(city, clean, "v1.0-mini"), split_names(clean))
    written = []
    for corruption, severity in (("fog", "light"), ("snow", "heavy")):
        for frame in (f for f in frames if f.scene == rows_name(frames, 1)):
            cloud = nuscenes.load_points(city, frame.points_path)
            semantic = nuscenes.load_labels(city, frame, len(cloud.points)).semantic.copy()
            points, ring = cloud.points, cloud.ring
            if corruption == "fog":
                semantic[::5] = 41
            else:
                points, semantic, ring = points[::2], semantic[::2], np.full(len(ring[::2]), 255)
            folder = root / "pointcloud" / corruption / severity
            stored = ring if corruption == "fog" else np.arange(len(ring)) % 3
            record = np.column_stack([points, stored]).astype("<f4")
            put(folder / "samples/LIDAR_TOP" / Path(frame.points_path).name, record.tobytes())
            label = folder / "lidarseg/v1.0-trainval" / f"{frame.lidar_token}_lidarseg.bin"
            put(label, semantic.astype("u1").tobytes())
            name = f"{corruption}-{severity}"
            written.append(
                Written(
                    f"{name}/scene-0003/{frame.position}", ("val", name), points, semantic,
                    ring=ring, T_world_lidar=frame.T_world_lidar, t_ns=frame.t_ns,
                )
            )  # fmt: skip
    return written


def rows_name(frames, number):
    """Return the name of the city's scene by its position."""
    return list(dict.fromkeys(frame.scene for frame in frames))[number]

"""A folder of one's own: one scene of .pcd and .bin clouds, one of .ply and .npy."""

from pathlib import Path

import cv2
import numpy as np
import yaml

from pipeline.manifest import Manifest
from tests.pipeline.datasets.writers.drive import (
    Moment,
    Written,
    pack_labels,
    put,
    relative_poses,
    text,
)


def pcd_bytes(points: np.ndarray, ring: np.ndarray, encoding: str) -> bytes:
    """Return a PCD file; compressed ones hold literal runs only, which any reader must take."""
    kinds = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"), ("ring", "<u2")]
    records = np.zeros(len(points), kinds)
    for column, (name, _) in enumerate(kinds[:4]):
        records[name] = points[:, column]
    records["ring"] = ring
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\n"
        "FIELDS x y z intensity ring\nSIZE 4 4 4 4 2\nTYPE F F F F U\nCOUNT 1 1 1 1 1\n"
        f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\n"
        f"DATA {encoding}\n"
    ).encode()
    if encoding == "ascii":
        rows = [" ".join(repr(v.item()) for v in record) for record in records]
        return header + ("\n".join(rows) + "\n").encode()
    if encoding == "binary":
        return header + records.tobytes()
    plain = b"".join(records[name].tobytes() for name in records.dtype.names)
    packed = b"".join(
        bytes([len(plain[k : k + 32]) - 1]) + plain[k : k + 32] for k in range(0, len(plain), 32)
    )
    return header + np.array([len(packed), len(plain)], "<u4").tobytes() + packed


def ply_bytes(points: np.ndarray, encoding: str) -> bytes:
    """Return a PLY file with a face behind the vertices, as meshes have."""
    order = ">" if "big" in encoding else "<"
    kinds = [(name, f"{order}f4") for name in ("x", "y", "z", "intensity")]
    records = np.zeros(len(points), kinds)
    for column, (name, _) in enumerate(kinds):
        records[name] = points[:, column]
    header = (
        f"ply\nformat {encoding} 1.0\ncomment made by a test\nelement vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\nproperty float intensity\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    ).encode()
    if encoding == "ascii":
        rows = [" ".join(repr(v.item()) for v in record) for record in records]
        return header + ("\n".join(rows) + "\n3 0 1 2\n").encode()
    return header + records.tobytes() + b"\x03" + np.arange(3, dtype=f"{order}i4").tobytes()


def write_folder(root: Path, scenes: list[list[Moment]], manifest: Manifest) -> list[Written]:
    """Write scenes 'home' and 'town' with two cameras; cloud formats in turn."""
    written = []
    cameras = scenes[0][0].cameras
    entries = {
        c.name: {
            "width": c.width,
            "height": c.height,
            "K": c.K.tolist(),
            "distortion": [0.01, -0.02, 0.001, 0.0, 0.0],
            "T_cam_lidar": c.T_cam_lidar.tolist(),
        }
        for c in cameras
    }
    root.mkdir(parents=True)
    (root / "calibration.yaml").write_text(yaml.safe_dump({"cameras": entries}, sort_keys=False))
    (root / "splits.yaml").write_text("train: [home]\nval: [town]\n")
    for name, split, moments in zip(("home", "town"), ("train", "val"), scenes, strict=True):
        poses = relative_poses(moments)
        for k, (moment, pose) in enumerate(zip(moments, poses, strict=True)):
            stem = f"scan_{k:03d}"
            ring = _put_cloud(
                root / name / "clouds" / stem, moment, k + (3 if split == "val" else 0)
            )
            semantic, instance = moment.semantic(manifest), moment.instance()
            put(root / name / f"labels/{stem}.label", pack_labels(semantic, instance))
            for camera, image in zip(cameras, moment.images, strict=False):
                path = root / name / f"images/{camera.name}/{stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image[..., ::-1])
            shown = tuple(_seen(c) if moment.images else None for c in cameras)
            written.append(
                Written(
                    f"{name}/{stem}", (split,), moment.points, semantic, instance, ring, pose,
                    k * 110_000_000, shown, moment.images or (None, None),
                )
            )  # fmt: skip
        (root / name / "poses.txt").write_text("\n".join(text(p[:3]) for p in poses) + "\n")
        (root / name / "times.txt").write_text("".join(f"{k * 0.11:.3f}\n" for k in range(7)))
    return written


def _seen(camera):
    from dataclasses import replace

    return replace(camera, distortion=(0.01, -0.02, 0.001, 0.0, 0.0))


def _put_cloud(base: Path, moment: Moment, turn: int) -> np.ndarray | None:
    """Write a cloud in the format whose turn it is; return its rings where it holds them."""
    points, ring = moment.points, moment.ring
    kind = turn % 8
    if kind < 3:
        encoding = ("ascii", "binary", "binary_compressed")[kind]
        put(base.with_suffix(".pcd"), pcd_bytes(points, ring, encoding))
        return ring
    if kind < 6:
        encoding = ("ascii", "binary_little_endian", "binary_big_endian")[kind - 3]
        put(base.with_suffix(".ply"), ply_bytes(points, encoding))
    elif kind == 6:
        put(base.with_suffix(".bin"), points.astype("<f4").tobytes())
    else:
        base.parent.mkdir(parents=True, exist_ok=True)
        np.save(base.with_suffix(".npy"), points)
    return None

"""RELLIS-3D: complete scans, (0, 0, 0) where nothing returned; transforms from camera to LiDAR."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from pipeline.geometry import invert_rigid
from pipeline.manifest import Manifest
from tests.pipeline.datasets.writers.drive import (
    Moment,
    Written,
    pack_labels,
    put,
    relative_poses,
    text,
)

T0_NS = 1_581_624_652_750_000_000


def quaternion(R: np.ndarray) -> list[float]:
    """Return w, x, y, z of a rotation, by the eigenvector of the largest eigenvalue."""
    (a, b, c), (d, e, f), (g, h, i) = R
    symmetric = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    values, vectors = np.linalg.eigh(symmetric)
    return vectors[:, np.argmax(values)].tolist()


def transform_yaml(key: str, matrix: np.ndarray) -> str:
    """Return an entry of transforms.yaml."""
    q, t = quaternion(matrix[:3, :3]), matrix[:3, 3].tolist()
    return (
        f"{key}:\n  q:\n"
        + "".join(f"    {a}: {v!r}\n" for a, v in zip("wxyz", q, strict=True))
        + "  t:\n"
        + "".join(f"    {a}: {v!r}\n" for a, v in zip("xyz", t, strict=True))
    )


def write_rellis3d(root: Path, scenes: list[list[Moment]], manifest: Manifest) -> list[Written]:
    """Write sequences 00000 (train, two scans test) and 00001 (val), spread over two roots."""
    written, lists = [], {"train": [], "val": [], "test": []}
    for name, split, moments in zip(("00000", "00001"), ("train", "val"), scenes, strict=True):
        data, more = root / "Rellis-3D" / name, root / "Rellis_3D_cam_intrinsic/Rellis-3D" / name
        more.mkdir(parents=True)
        camera, poses = moments[0].cameras[0], relative_poses(moments)
        K = camera.K
        (more / "camera_info.txt").write_text(text([K[0, 0], K[1, 1], K[0, 2], K[1, 2]]))
        (more / "transforms.yaml").write_text(
            transform_yaml("os1_cloud_node-pylon_camera_node", invert_rigid(camera.T_cam_lidar))
        )
        for k, (moment, pose) in enumerate(zip(moments, poses, strict=True)):
            own = "test" if name == "00000" and k in (1, 2) else split
            semantic = moment.semantic(manifest)
            complete = np.zeros((len(semantic) + len(semantic) // 2, 4), "<f4")
            labels = np.zeros(len(complete), np.uint16)
            at = np.arange(len(semantic)) * 3 // 2  # every third pixel has no return
            complete[at], labels[at] = moment.points, semantic
            scan = f"os1_cloud_node_kitti_bin/{k:06d}.bin"
            label = f"os1_cloud_node_semantickitti_label_id/{k:06d}.label"
            put(data / scan, complete.tobytes())
            put(data / label, pack_labels(labels, np.zeros(len(labels), np.uint16)))
            lists[own].append(f"{name}/{scan} {name}/{label}\n")
            t_ns, image = T0_NS + k * 100_000_000, moment.images[0] if moment.images else None
            if image is not None:
                stamp = f"{t_ns // 10**9}_{t_ns // 10**6 % 1000:03d}"
                folder = data / "pylon_camera_node"
                folder.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / f"frame{k:06d}-{stamp}.png"), image[..., ::-1])
            shown = replace(camera, distortion=manifest.distortion) if image is not None else None
            written.append(
                Written(
                    f"{name}/{k}", (own,), moment.points, semantic, T_world_lidar=pose,
                    t_ns=t_ns, cameras=(shown,), images=(image,),
                )
            )  # fmt: skip
        (data / "poses.txt").write_text("\n".join(text(pose[:3]) for pose in poses) + "\n")
    for split, lines in lists.items():
        (root / f"pt_{split}.lst").write_text("".join(lines))
    return written

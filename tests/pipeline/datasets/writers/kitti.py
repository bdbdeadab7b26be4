"""KITTI-like sets: SemanticKITTI, ScribbleKITTI, SemanticPOSS, SynLiDAR, DAPS-3D, SemanticSTF."""

from pathlib import Path

import cv2
import numpy as np

from pipeline.manifest import Manifest
from tests.pipeline.datasets.writers.drive import (
    Moment,
    Written,
    pack_labels,
    put,
    relative_poses,
    text,
)

# Any rectified rig will do: camera 0 sits half a meter left of camera 2, in its axes.
T_CAM2_CAM0 = np.eye(4)
T_CAM2_CAM0[0, 3] = -0.5


def write_scans(
    root: Path, scenes: list[list[Moment]], manifest: Manifest, where: list[tuple[str, str]],
    width: int = 4, scans: str = "velodyne", labels: str = "labels",
) -> list[Written]:  # fmt: skip
    """Write each scene to `<folder>` of (folder, split) with scans and labels; return them."""
    written = []
    for (folder, split), moments in zip(where, scenes, strict=True):
        for k, moment in enumerate(moments):
            record = np.zeros((len(moment.points), width), "<f4")
            record[:, :4] = moment.points
            put(root / folder / scans / f"{k:06d}.bin", record.tobytes())
            semantic, instance = moment.semantic(manifest), moment.instance()
            packed = pack_labels(semantic, instance)
            put(root / folder / labels / f"{k:06d}.label", packed)
            frame_id = f"{Path(folder).name}/{k}"
            written.append(Written(frame_id, (split,), moment.points, semantic, instance))
    return written


def write_semantickitti(
    root: Path, scenes: list[list[Moment]], manifest: Manifest, labels: str = "labels"
) -> list[Written]:
    """Write scans, labels, calib, poses, times and image_2 of sequences 00 (train) and 08 (val)."""
    where = [("sequences/00", "train"), ("sequences/08", "val")]
    plain = iter(write_scans(root, scenes[:1], manifest, where[:1], labels=labels))
    second = iter(write_scans(root, scenes[1:], manifest, where[1:]))
    written = []
    for (folder, _), moments, items in zip(where, scenes, (plain, second), strict=True):
        path, poses = root / folder, relative_poses(moments)
        camera = moments[0].cameras[0]
        T_cam0_lidar = np.linalg.inv(T_CAM2_CAM0) @ camera.T_cam_lidar
        P2 = camera.K @ T_CAM2_CAM0[:3]
        (path / "calib.txt").write_text(
            f"P0: {text(np.eye(4)[:3])}\nP2: {text(P2)}\nTr: {text(T_cam0_lidar[:3])}\n"
        )
        T_lidar_cam0 = np.linalg.inv(T_cam0_lidar)
        lines = [text((T_cam0_lidar @ pose @ T_lidar_cam0)[:3]) for pose in poses]
        (path / "poses.txt").write_text("\n".join(lines) + "\n")
        start = moments[0].t_ns
        (path / "times.txt").write_text("".join(f"{(m.t_ns - start) / 1e9:.9f}\n" for m in moments))
        (path / "image_2").mkdir()
        for k, (moment, item, pose) in enumerate(zip(moments, items, poses, strict=True)):
            image = moment.images[0] if moment.images else None
            if image is not None:
                cv2.imwrite(str(path / f"image_2/{k:06d}.png"), image[..., ::-1])
            written.append(
                Written(
                    item.frame_id, item.splits, item.points, item.semantic, item.instance,
                    T_world_lidar=pose, t_ns=moment.t_ns - start,
                    cameras=(camera if image is not None else None,), images=(image,),
                )
            )  # fmt: skip
    return written


def write_scribblekitti(root, scenes, manifest):
    """Write scribbles for the training sequence, and decoys where its full labels would be."""
    written = write_semantickitti(root, scenes, manifest, labels="scribbles")
    for item in written[: len(scenes[0])]:
        number = int(item.frame_id.rpartition("/")[2])
        put(root / f"sequences/00/labels/{number:06d}.label", b"\xff" * 4 * len(item.points))
    return written


def write_semanticposs(root, scenes, manifest):
    """Write sequences 00 (train, half) and 02 (val); a poses.txt that must not be read as poses."""
    where = [("sequences/00", "train"), ("sequences/02", "val")]
    written = write_scans(root, scenes, manifest, where)
    (root / "sequences/00/poses.txt").write_text("not poses\n")
    half = [Written(w.frame_id, ("train", "half"), w.points, w.semantic, w.instance)
            for w in written if w.splits == ("train",)]  # fmt: skip
    return half + written[len(half) :]


def write_semanticstf(root, scenes, manifest):
    """Write train and val with 20-byte records and a weather for every validation scan."""
    written = write_scans(root, scenes, manifest, [("train", "train"), ("val", "val")], width=5)
    weathers = ["dense_fog", "light_fog", "snow", "rain"]
    lines = [f"velodyne/{k:06d}.bin,{weathers[k % 4]}" for k in range(len(scenes[1]))]
    (root / "val/val.txt").write_text("\n".join(lines) + "\n")
    return [
        Written(
            w.frame_id,
            w.splits if w.splits == ("train",) else ("val", weathers[int(w.frame_id[4:]) % 4]),
            w.points,
            w.semantic,
        )
        for w in written
    ]


def write_synlidar(root, scenes, manifest):
    """Write scenes 01 (train) and 00 (val) right under the root; one training scan has no label."""
    written = write_scans(root, scenes[::-1], manifest, [("00", "val"), ("01", "train")])
    (root / "01/labels/000002.label").unlink()
    return [
        Written(w.frame_id, w.splits, w.points, None if w.frame_id == "01/2" else w.semantic,
                None if w.frame_id == "01/2" else w.instance)
        for w in written
    ]  # fmt: skip


def write_daps3d(root, scenes, manifest):
    """Write DAPS-2's training sequence and another one; the folder in capitals."""
    where = [
        ("DAPS-2/data/38-18_7_72_90", "train"),
        ("DAPS-2/data/42-48_10_78_90", "val"),
    ]
    written = write_scans(root, scenes, manifest, where, scans="clouds")
    return [
        Written(w.frame_id, ("train", "val") if w.splits == ("train",) else w.splits, w.points,
                w.semantic, w.instance)
        for w in written
    ]  # fmt: skip


def write_synth4d(root, scenes, manifest):
    """Write two towns as .npy, one file named plainly and the rest with six digits."""
    written = []
    for town, moments in zip(("Town03", "Town10HD"), scenes, strict=True):
        for k, moment in enumerate(moments):
            stem = f"{k}" if k == 3 else f"{k:06d}"
            folder = root / "nuscenes_synth" / town
            for kind in ("velodyne", "labels"):
                (folder / kind).mkdir(parents=True, exist_ok=True)
            semantic = moment.semantic(manifest)
            np.save(folder / f"velodyne/{stem}.npy", moment.points.astype(np.float64))
            np.save(folder / f"labels/{stem}.npy", semantic.astype(np.int64)[:, None])
            written.append(Written(f"{town}/{k}", (), moment.points, semantic))
    return written

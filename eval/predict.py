"""Classes for scans of any origin: files in, one class per point out.

In: .bin, .npy, .pcd or .ply files. Out: `<out>/<name>.npy` [N] uint8 train ids in the file's own
order, and `classes.json`, their names by id.
"""

import io
import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from eval.predictor import Predictor
from eval.votes import read_poses, vote
from pipeline.errors import UserError, check
from pipeline.files import write_atomically
from pipeline.formats import read_kitti_points, read_nuscenes_points
from pipeline.npy import read_npy_points
from pipeline.pcd import read_pcd
from pipeline.ply import read_ply
from pipeline.progress import Progress
from train.batch import join_cells, make_cloud

SUFFIXES = (".bin", ".npy", ".pcd", ".ply")


@dataclass(frozen=True)
class Speed:
    """How fast a folder went, files and all."""

    num_scans: int
    num_points: int
    seconds: float


def find_scans(path: Path) -> list[Path]:
    """Return the scans of a file or of a folder, sorted by name.

    Raises:
        UserError: nothing there, or two scans whose predictions would have one name.
    """
    check(path.exists(), f"{path}: scans must exist, got nothing; give a file or a folder")
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    scans = [file for file in files if file.suffix in SUFFIXES]
    check(
        bool(scans),
        f"{path}: must be or hold a scan ({', '.join(SUFFIXES)}), got {len(files)} other files; "
        "give another file or folder",
    )
    names = [stem_of(scan) for scan in scans]
    twice = sorted({name for name in names if names.count(name) > 1})
    check(
        not twice,
        f"{path}: scans must have names of their own, got '{', '.join(twice[:3])}' with several "
        "endings; give one folder per format",
    )
    return scans


def stem_of(path: Path) -> str:
    """Return a scan's name without its ending, '.pcd.bin' being one."""
    return path.name.removesuffix(".pcd.bin") if path.name.endswith(".pcd.bin") else path.stem


def read_points(path: Path) -> np.ndarray:
    """Return a scan's points [N, 4] float32: x, y, z in m, raw intensity (0 where it has none).

    '.pcd.bin' is nuScenes' five numbers a point, '.bin' KITTI's four.

    Raises:
        UserError: missing, damaged, or not of its format.
    """
    if path.name.endswith(".pcd.bin"):
        return read_nuscenes_points(path).points
    readers = {
        ".bin": read_kitti_points,
        ".npy": read_npy_points,
        ".pcd": read_pcd,
        ".ply": read_ply,
    }
    if path.suffix not in readers:
        raise UserError(
            f"{path}: scan must end in {', '.join(readers)}, got '{path.suffix}'; convert it"
        )
    return readers[path.suffix](path).points


def class_probabilities(predictor: Predictor, points: np.ndarray, device: str) -> np.ndarray:
    """Return [N, K] float32 for raw points [N, 4]; a point without a position (NaN) gets zeros."""
    found = np.zeros((len(points), len(predictor.classes)), np.float32)
    valid = np.flatnonzero(np.isfinite(points[:, :3]).all(axis=1))
    if not len(valid):
        return found
    shifted = np.nan_to_num(points[valid])
    shifted[:, 3] = predictor.feed(shifted[:, 3])
    cloud = make_cloud(shifted, np.zeros(0, np.uint16), predictor.voxels)
    features, coordinates = join_cells([cloud])
    with torch.no_grad():
        logits = predictor.network(features.to(device), coordinates.to(device))
    found[valid] = logits.softmax(1).cpu().numpy()[cloud.voxel_idx]
    return found


def predict_files(
    predictor: Predictor,
    scans: list[Path],
    out: Path,
    poses: Path | None,
    neighbors: int,
    device: str,
) -> Speed:
    """Write the classes of every scan; 255 where a point has no position.

    Args:
        predictor: network.
        scans: files, in order of time where scans vote.
        out: folder.
        poses: T_world_lidar of each scan, 12 numbers a line; needed to vote.
        neighbors: scans to either side that vote; 0 = each scan for itself.
        device: torch device.

    Raises:
        UserError: votes without poses, poses that do not fit, a scan that cannot be read, or
            classes that would replace a scan.
    """
    _check_scans_stay(scans, out)
    check(
        neighbors == 0 or poses is not None,
        f"--neighbors {neighbors}: voting needs the poses of the scans; give --poses FILE",
    )
    T_world_lidar = read_poses(poses, len(scans)) if poses else [np.eye(4)] * len(scans)
    predictor.network.to(device)
    start, num_points = time.perf_counter(), 0
    progress = Progress("predict", len(scans), "scans")
    for scan, probabilities in _voted(predictor, scans, T_world_lidar, neighbors, device):
        has_class = probabilities.any(axis=1)
        classes = np.where(has_class, probabilities.argmax(axis=1), 255).astype(np.uint8)
        buffer = io.BytesIO()
        np.save(buffer, classes)
        write_atomically(_classes_path(out, scan), buffer.getvalue())
        num_points += len(classes)
        progress.advance()
    progress.close()
    write_atomically(out / "classes.json", json.dumps(list(predictor.classes)).encode())
    return Speed(len(scans), num_points, time.perf_counter() - start)


def _classes_path(out: Path, scan: Path) -> Path:
    return out / f"{stem_of(scan)}.npy"


def _check_scans_stay(scans: list[Path], out: Path) -> None:
    """Refuse to write over what is read."""
    read = {scan.resolve() for scan in scans}
    for scan in scans:
        path = _classes_path(out, scan)
        check(
            path.resolve() not in read,
            f"--out {out}: must be a folder without the scans, got {path}, which is one; give "
            "another folder",
        )


def _voted(
    predictor: Predictor,
    scans: list[Path],
    T_world_lidar: list[np.ndarray],
    neighbors: int,
    device: str,
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield each scan with its summed probabilities; at most 2 * neighbors + 1 are in memory."""
    window: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=2 * neighbors + 1)
    for last in range(len(scans) + neighbors):
        if last < len(scans):
            points = read_points(scans[last])
            window.append((last, points, class_probabilities(predictor, points, device)))
        center = last - neighbors
        if center < 0:
            continue
        members = [m for m in window if abs(m[0] - center) <= neighbors]
        at = [m[0] for m in members].index(center)
        poses = [T_world_lidar[m[0]] for m in members]
        valid = np.isfinite(members[at][1][:, :3]).all(axis=1)
        clouds = [_positioned(points, shares) for _, points, shares in members]
        total = members[at][2].copy()
        total[valid] = vote([c for c, _ in clouds], [s for _, s in clouds], poses, at)
        yield scans[center], total


def _positioned(points: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    valid = np.isfinite(points[:, :3]).all(axis=1)
    return points[valid], shares[valid]

"""Calibration and pose text files of KITTI odometry.

In: calib.txt, poses.txt, times.txt. Out: matrices whose names say the frames. KITTI gives poses of
camera 0 and hides each camera's baseline in its projection matrix; both are undone here.
"""

from pathlib import Path

import numpy as np

from pipeline.errors import check
from pipeline.geometry import Transform


def read_calib(path: Path) -> dict[str, np.ndarray]:
    """Return the rows of a calib.txt as [4, 4] float64, the last line 0 0 0 1 appended.

    Raises:
        UserError: missing, or a row that is not 12 numbers.
    """
    check(path.is_file(), f"{path}: calibration must be there, not found; copy data_odometry_calib")
    rows = {}
    for line in path.read_text(errors="replace").splitlines():
        key, colon, numbers = line.partition(":")
        if colon:
            values = _floats(numbers, 12, f"{path}: row '{key}'")
            rows[key.strip()] = np.vstack([np.reshape(values, (3, 4)), [0.0, 0.0, 0.0, 1.0]])
    return rows


def split_projection(P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return K [3, 3] and T_cam_cam0 [4, 4] of a projection matrix P = K [I | t].

    The rectified cameras differ from camera 0 by a baseline only, which KITTI hides in P's last
    column: t = K^-1 p4.
    """
    T_cam_cam0 = np.eye(4)
    T_cam_cam0[:3, 3] = np.linalg.solve(P[:3, :3], P[:3, 3])
    return P[:3, :3].copy(), T_cam_cam0


def calib_row(rows: dict[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    """Return one row of read_calib.

    Raises:
        UserError: the file at `path` lacks it, or it cannot be inverted.
    """
    check(
        key in rows,
        f"{path}: must have the row '{key}', got {', '.join(rows) or 'none'}; copy the file again",
    )
    square = rows[key][:3, :3]
    check(
        abs(np.linalg.det(square)) > 1e-9,
        f"{path}: row '{key}' must be invertible, got "
        f"{square.tolist() if square.any() else 'zeros'}; copy the file again",
    )
    return rows[key]


def read_lidar_poses(path: Path, T_cam0_lidar: Transform, last: int) -> np.ndarray:
    """Return T_world_lidar [scans, 4, 4] of a poses.txt: Tr^-1 P Tr.

    The file has poses of camera 0 in the frame of the first camera 0; world here is the LiDAR frame
    that goes with it.

    Args:
        path: poses.txt, a line of 12 numbers per scan.
        T_cam0_lidar: row Tr of calib.txt.
        last: largest scan number that must have a line.

    Raises:
        UserError: a line that is not 12 numbers, or too few lines.

    Source: PRBonn/semantic-kitti-api generate_sequential.py (MIT).
    """
    T_world_cam0world = Transform("world", "cam0world", T_cam0_lidar.inverse().matrix)
    poses = []
    for row in read_rows(path, 12, last):
        matrix = np.vstack([row.reshape(3, 4), [0.0, 0.0, 0.0, 1.0]])
        T_cam0world_cam0 = Transform("cam0world", "cam0", matrix)
        poses.append((T_world_cam0world @ T_cam0world_cam0 @ T_cam0_lidar).matrix)
    return np.array(poses)


def read_rows(path: Path, width: int, last: int) -> np.ndarray:
    """Return the lines of a text file as [lines, width] float64.

    Raises:
        UserError: a line that is not `width` numbers, or no line for scan number `last`.
    """
    lines = path.read_text(errors="replace").split("\n")
    rows = [
        _floats(line, width, f"{path}: line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    check(
        len(rows) > last,
        f"{path}: must have a line for every scan up to {last}, got {len(rows)} lines; "
        "copy it again",
    )
    return np.array(rows)


def _floats(text: str, count: int, where: str) -> list[float]:
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    check(
        len(values) == count and bool(np.isfinite(values).all()),
        f"{where}: must be {count} numbers, got '{text.strip()[:60]}'; copy the file again",
    )
    return values

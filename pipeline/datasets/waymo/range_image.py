"""Waymo's range images to points: one LiDAR at a time, plain NumPy.

In: ranges by row and column, the LiDAR's mount and inclinations, and for TOP the vehicle's pose at
every pixel. Out: points in the vehicle frame at the frame's pose. Without the pixel poses the
points of a moving car are smeared by up to a meter.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.geometry import invert_rigid


@dataclass(frozen=True)
class LidarMount:
    """Calibration of one LiDAR."""

    T_vehicle_laser: np.ndarray  # [4, 4] float64, m
    inclinations_rad: np.ndarray | None  # [H], lowest first; None = spread evenly
    lowest_rad: float
    highest_rad: float


def row_inclinations(mount: LidarMount, height: int) -> np.ndarray:
    """Return the inclination of every row [H] float64, rad; row 0 is the highest beam.

    Raises:
        ValueError: the calibration lists another number of beams.
    """
    if mount.inclinations_rad is None:
        share = (np.arange(height) + 0.5) / height
        rows = mount.lowest_rad + share * (mount.highest_rad - mount.lowest_rad)
    else:
        rows = np.asarray(mount.inclinations_rad, np.float64)
    if len(rows) != height:
        raise ValueError(f"inclinations must be one per row, got {len(rows)} for {height} rows")
    return rows[::-1]


def column_azimuths(mount: LidarMount, width: int) -> np.ndarray:
    """Return the azimuth of every column [W] float64, rad, in the laser's frame.

    Columns run clockwise seen from above and are counted from behind the vehicle, so the mount's
    own yaw is taken off.
    """
    yaw_rad = np.arctan2(mount.T_vehicle_laser[1, 0], mount.T_vehicle_laser[0, 0])
    share = (width - np.arange(width) - 0.5) / width
    return np.pi * (2 * share - 1) - yaw_rad


def points_of_image(
    ranges_m: np.ndarray,
    mount: LidarMount,
    pixel_poses: np.ndarray | None,
    T_world_vehicle: np.ndarray,
) -> np.ndarray:
    """Return the points of the pixels with a return, row by row.

    Args:
        ranges_m: [H, W], m; 0 or less = no return.
        mount: the LiDAR's calibration.
        pixel_poses: [H, W, 6] roll, pitch, yaw (rad), x, y, z (m) of the vehicle in the world at
            each pixel's time; None = the vehicle is taken to stand (all LiDARs but TOP).
        T_world_vehicle: [4, 4] float64, the frame's pose.

    Returns:
        [M, 3] float64, m, vehicle frame (x forward, y left, z up) at the frame's pose.

    Source: waymo-research/waymo-open-dataset utils/range_image_utils.py (Apache-2.0); written from
    its formulas.
    """
    rows, columns = np.nonzero(ranges_m > 0)
    distance = ranges_m[rows, columns].astype(np.float64)
    inclination = row_inclinations(mount, ranges_m.shape[0])[rows]
    azimuth = column_azimuths(mount, ranges_m.shape[1])[columns]
    flat = distance * np.cos(inclination)
    points_laser = np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(inclination)], axis=1
    )
    T = mount.T_vehicle_laser
    points_vehicle = points_laser @ T[:3, :3].T + T[:3, 3]
    if pixel_poses is None:
        return points_vehicle
    poses = pixel_poses[rows, columns].astype(np.float64)
    rotations = rotations_of(poses[:, :3])
    points_world = np.einsum("nij,nj->ni", rotations, points_vehicle) + poses[:, 3:]
    T_vehicle_world = invert_rigid(T_world_vehicle)
    return points_world @ T_vehicle_world[:3, :3].T + T_vehicle_world[:3, 3]


def rotations_of(angles_rad: np.ndarray) -> np.ndarray:
    """Return rotations [N, 3, 3] of angles [N, 3] roll, pitch, yaw: Rz(yaw) Ry(pitch) Rx(roll)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(angles_rad).T, np.sin(angles_rad).T
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

"""The rig of a drive and what its sensors record: six cameras and a spinning LiDAR.

Frames as in nuScenes: ego x forward, y left, z up; LiDAR z up, x as it is mounted; camera x right,
y down, z forward. Cameras fire while the beam sweeps over them, so each has its own time and ego
pose; a LiDAR scan is given in the pose at its end, where all its rays are cast (nuScenes sweeps are
motion-compensated to that moment).
"""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.geometry import rigid, rotation_from_quaternion
from pipeline.synthetic.lidars import DEFAULT, LIDARS, Lidar
from pipeline.synthetic.parts import Thing, box
from pipeline.synthetic.scene import EGO, EGO_PIECE, Drive
from pipeline.synthetic.shade import render, scan
from pipeline.synthetic.world import world_at

LIDAR = "LIDAR_TOP"
MAX_RANGE_M = 85.0
RANGE_NOISE_M = 0.02
# Position in the ego frame in m, yaw and horizontal field of view in degrees, and how long before
# the end of the sweep it fires in microseconds (positions and delays of a real nuScenes keyframe).
CAMERAS = {
    "CAM_FRONT": ((1.70, 0.02, 1.51), 0.0, 70.0, 35491),
    "CAM_FRONT_RIGHT": ((1.55, -0.49, 1.50), -55.0, 70.0, 27612),
    "CAM_BACK_RIGHT": ((1.02, -0.48, 1.56), -110.0, 70.0, 20058),
    "CAM_BACK": ((0.03, 0.00, 1.58), 180.0, 110.0, 10426),
    "CAM_BACK_LEFT": ((1.04, 0.48, 1.59), 110.0, 70.0, 528),
    "CAM_FRONT_LEFT": ((1.52, 0.49, 1.51), 55.0, 70.0, 43107),
}
# All of the own vehicle that the LiDAR sees: an aerial behind it.
AERIAL = Thing(
    EGO, (box((-0.15, -0.08, 1.3), (0.0, 0.08, 1.55), (0.1, 0.1, 0.1)),), (0.16, 0.15, 0.25)
)


@dataclass(frozen=True)
class Mount:
    """Calibration of one sensor of one drive."""

    channel: str
    translation: np.ndarray  # [3] float64, sensor in the ego frame, m
    rotation_wxyz: np.ndarray  # [4] float64, sensor to ego
    K: np.ndarray | None  # [3, 3] float64, pixels; None for the LiDAR
    delay_us: int  # before the end of the sweep
    elevation_deg: tuple[float, ...] = ()  # of the LiDAR's rings, lowest first; () for a camera

    @property
    def T_ego_sensor(self) -> np.ndarray:
        """The calibration as a matrix [4, 4] float64."""
        return rigid(rotation_from_quaternion(self.rotation_wxyz), self.translation)


@dataclass(frozen=True)
class Scan:
    """One LiDAR scan in the sensor's frame, column by column, lowest ring first."""

    points: np.ndarray  # [N, 5] float32: x, y, z in m, intensity 0 .. 255, ring
    pieces: np.ndarray  # [N] int32, piece of surface each return came from


def quaternion_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the quaternion [4] (w, x, y, z) of rotation a after rotation b."""
    return np.array(
        [
            a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
            a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
            a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
            a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
        ]
    )


def quaternion_from_yaw(yaw: float) -> np.ndarray:
    """Return the quaternion [4] (w, x, y, z) of a turn about z by `yaw` rad."""
    return np.array([math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)])


def draw_rig(
    rng: np.random.Generator, height: int, width: int, lidar: Lidar = LIDARS[DEFAULT]
) -> list[Mount]:
    """Return the LiDAR and the cameras, each a little off its place (1 cm, 0.4 deg).

    Args:
        rng: of the drive.
        height: of the images, pixels.
        width: of the images, pixels.
        lidar: its beams, and where it is mounted.
    """
    mounts = []
    # x right, y down, z forward of a camera that looks along the ego's x.
    camera = np.array([0.5, -0.5, 0.5, -0.5])
    sensors = {LIDAR: (lidar.position, lidar.yaw_deg, 0.0, 0), **CAMERAS}
    for channel, (position, yaw, field, delay) in sensors.items():
        small = np.concatenate([[1.0], rng.normal(0, math.radians(0.2), 3)])
        rotation = quaternion_product(quaternion_from_yaw(math.radians(yaw)), small)
        K, rings = None, lidar.elevation_deg
        if channel != LIDAR:
            rings = ()
            rotation = quaternion_product(rotation, camera)
            focal = width / 2 / math.tan(math.radians(field / 2)) * rng.uniform(0.99, 1.01)
            center = np.array([width, height]) * (0.5 + rng.normal(0, 0.006, 2))
            K = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1.0]])
        rotation /= np.linalg.norm(rotation)
        translation = np.array(position) + rng.normal(0, 0.01, 3)
        mounts.append(Mount(channel, translation, rotation, K, delay, rings))
    return mounts


def ego_pose(drive: Drive, time_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return translation [3], rotation [4] (w, x, y, z) of the ego in scene coordinates."""
    x, y, yaw = drive.ego_at(time_s)
    return np.array([x, y, 0.0]), quaternion_from_yaw(yaw)


def _T_scene_sensor(drive: Drive, mount: Mount, time_s: float) -> np.ndarray:
    translation, rotation = ego_pose(drive, time_s)
    return rigid(rotation_from_quaternion(rotation), translation) @ mount.T_ego_sensor


def take_picture(
    drive: Drive, mount: Mount, time_s: float, height: int, width: int, noise_seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a camera sees at a time: image [H, W, 3] uint8 RGB, pieces [H, W] int32.

    Args:
        drive: the scene and the ego's motion.
        mount: the camera.
        time_s: of the exposure, since the scene's start.
        height: pixels.
        width: pixels.
        noise_seed: of the sensor noise.
    """
    world = world_at(drive.scene, time_s)
    return render(world, _T_scene_sensor(drive, mount, time_s), mount.K, height, width, noise_seed)


def beams(elevation_deg: tuple[float, ...], num_columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rays of one turn: directions [columns * rings, 3] in the LiDAR frame, rings [..].

    The turn starts opposite to the sensor's y axis and goes clockwise seen from above.
    """
    elevation, num_rings = np.radians(elevation_deg), len(elevation_deg)
    azimuth = -math.pi + 2 * math.pi * (np.arange(num_columns) + 0.5) / num_columns
    up = np.tile(np.sin(elevation), num_columns)
    flat = np.tile(np.cos(elevation), num_columns)
    turned = np.repeat(azimuth, num_rings)
    rings = np.tile(np.arange(num_rings, dtype=np.float32), num_columns)
    return np.stack([flat * np.sin(turned), flat * np.cos(turned), up], axis=1), rings


def take_scan(
    drive: Drive, mount: Mount, time_s: float, num_columns: int, rng: np.random.Generator
) -> Scan:
    """Return the scan that ends at a time: range noise, intensity noise, lost returns.

    Args:
        drive: the scene and the ego's motion.
        mount: the LiDAR.
        time_s: of the sweep's end, since the scene's start.
        num_columns: rays per ring and turn.
        rng: of this scan.
    """
    x, y, yaw = drive.ego_at(time_s)
    world = world_at(drive.scene, time_s, (AERIAL, (x, y, 0.0), yaw), EGO_PIECE)
    T_scene_lidar = _T_scene_sensor(drive, mount, time_s)
    directions, rings = beams(mount.elevation_deg, num_columns)
    directions_scene = directions @ T_scene_lidar[:3, :3].T
    ranges, strengths, pieces = scan(world, T_scene_lidar[:3, 3], directions_scene, MAX_RANGE_M)
    noise = rng.normal(0, 1, (3, len(ranges)))
    # Weak returns from afar are lost more often, as glass and dark paint are in real scans.
    weak = np.clip(1.0 - strengths / 0.12, 0, 1)
    far = np.clip(np.where(np.isfinite(ranges), ranges, 0) / MAX_RANGE_M, 0, 1)
    lost = rng.random(len(ranges)) < 0.015 + 0.25 * weak * (0.3 + far)
    kept = np.isfinite(ranges) & ~lost
    noisy = ranges[kept] + RANGE_NOISE_M * noise[0, kept]
    intensity = 255.0 * strengths[kept] * np.exp(0.25 * noise[1, kept]) + 2.0 * noise[2, kept]
    points = np.empty((int(kept.sum()), 5), np.float32)
    points[:, :3] = directions[kept] * noisy[:, None]
    points[:, 3] = np.clip(np.rint(intensity), 0, 255)
    points[:, 4] = rings[kept]
    return Scan(points, pieces[kept])

"""What crosses file boundaries in stage one: frames, cameras, sweeps, clouds, labels.

Paths are relative to the data set's root, those into a Parquet file end in '#' and the record;
matrices are float64 [4, 4] in metres.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Camera:
    """One image of a keyframe, with the chain of transforms already multiplied out.

    `T_cam_lidar` maps points from the LiDAR frame at LiDAR time to the camera frame at the camera's
    own time (method: LiDAR -> ego at LiDAR time -> world -> ego at camera time -> camera).
    """

    name: str
    token: str  # opaque key; names the PNG of an imported superpixel map
    path: str
    height: int  # native pixels
    width: int
    K: np.ndarray  # [3, 3] float64, pixels
    T_cam_lidar: np.ndarray  # [4, 4] float64
    t_ns: int
    distortion: tuple[float, ...] = ()  # OpenCV order k1 k2 p1 p2 k3; empty = rectified


@dataclass(frozen=True)
class Sweep:
    """A LiDAR scan between a keyframe and its successor."""

    path: str
    T_lidar_sweep: np.ndarray  # [4, 4] float64: sweep's sensor frame -> LiDAR frame of the keyframe


@dataclass(frozen=True)
class Frame:
    """One LiDAR keyframe: everything stage one needs to know before it opens a recording."""

    frame_id: str  # unique in the data set, '<scene>/<position>', or the file's name for position
    scene: str
    position: int  # in time within the scene
    splits: tuple[str, ...]  # names of the splits it belongs to
    t_ns: int
    points_path: str
    max_points: int  # upper bound of its point count, known from the file size
    lidar_token: str
    T_world_lidar: np.ndarray | None  # [4, 4] float64; None where the data set has no poses
    successor_id: str | None  # frame_id of the frame about 0.5 s later in the same scene
    sweeps: tuple[Sweep, ...] = ()  # scans strictly between this frame and its successor, in order
    label_path: str | None = None
    instance_path: str | None = None
    cameras: tuple[Camera | None, ...] = ()  # one slot per camera of the manifest; None = absent


@dataclass(frozen=True)
class PointCloud:
    """One scan in its own sensor frame."""

    points: np.ndarray  # [N, 4] float32: x, y, z in metres, raw intensity
    ring: np.ndarray  # [N] uint8 beam number, 255 = unknown


@dataclass(frozen=True)
class Labels:
    """Raw labels of one scan, before any mapping to train ids."""

    semantic: np.ndarray  # [N] uint16
    instance: np.ndarray | None = field(default=None)  # [N] uint16, unique per scene; 0 = none

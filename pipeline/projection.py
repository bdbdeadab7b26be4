"""Which pixel of a camera sees which point.

In: points of a scan in the LiDAR frame and a camera. Out: native pixel column, row per point, -1
where it is not seen. No occlusion test, as in SLidR; `T_cam_lidar` already holds both ego poses, so
ego motion between the two exposures is compensated, motion of others is not.
"""

import numba
import numpy as np

from pipeline.schema import NOT_SEEN
from pipeline.types import Camera

MIN_DEPTH_M = 1.0  # SLidR dataloader_nuscenes.py


def project(points: np.ndarray, camera: Camera, min_depth_m: float = MIN_DEPTH_M) -> np.ndarray:
    """Return the native pixel of every point in a camera.

    Args:
        points: [N, >=3] float32, m, LiDAR frame; further columns are ignored, NaN is not seen.
        camera: intrinsics, distortion, native size and T_cam_lidar.
        min_depth_m: seen points are farther than this along the optical axis.

    Returns:
        [N, 2] int16, column and row; -1, -1 = not seen. Seen means depth > min_depth_m and
        0 < u < W - 1 and 0 < v < H - 1 before rounding to the nearest even-on-tie integer.

    Source: SLidR pretrain/dataloader_nuscenes.py (Apache-2.0), which stores row before column and
    has no distortion.
    """
    return project_with_depth(points, camera, min_depth_m)[0]


def project_with_depth(
    points: np.ndarray, camera: Camera, min_depth_m: float = MIN_DEPTH_M
) -> tuple[np.ndarray, np.ndarray]:
    """Return `project`'s pixels [N, 2] int16 and depth_cam [N] float32, m along the optical axis.

    Depth is given for every point, seen or not (negative = behind the camera).
    """
    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f"points must be [N, >=3], got {list(points.shape)}")
    distortion = np.zeros(5)
    distortion[: len(camera.distortion)] = camera.distortion
    uv = np.empty((len(points), 2), np.int16)
    depth_cam = np.empty(len(points), np.float32)
    _project(
        points,
        np.ascontiguousarray(camera.T_cam_lidar, np.float64),
        np.ascontiguousarray(camera.K, np.float64),
        distortion,
        _largest_radius2(distortion),
        np.array([camera.width, camera.height], np.float64),
        min_depth_m,
        uv,
        depth_cam,
    )
    return uv, depth_cam


def keep_seen(
    uv: np.ndarray, points: np.ndarray, camera: Camera, min_depth_m: float = MIN_DEPTH_M
) -> np.ndarray:
    """Return recorded pixels [N, 2] int16 under the rule of `project`: depth, strictly inside.

    Args:
        uv: [N, 2] int16 column and row that the data set recorded, -1 = not seen.
        points: [N, >=3] float32, m, LiDAR frame.
        camera: native size and T_cam_lidar, for the depth.
        min_depth_m: as in `project`.

    Raises:
        ValueError: not one pixel per point.
    """
    if uv.shape != (len(points), 2):
        raise ValueError(f"uv must be [{len(points)}, 2], got {list(uv.shape)}")
    depth_cam = project_with_depth(points, camera)[1]
    inside = (uv > 0).all(axis=1) & (uv[:, 0] < camera.width - 1) & (uv[:, 1] < camera.height - 1)
    return np.where((inside & (depth_cam > min_depth_m))[:, None], uv, NOT_SEEN).astype(np.int16)


def _largest_radius2(distortion: np.ndarray) -> float:
    """Return the squared normalized radius up to which the radial polynomial grows.

    Beyond it the polynomial turns back, and points far outside the view would land in the image.
    """
    k1, k2, _, _, k3 = distortion
    # d/dr [r (1 + k1 r^2 + k2 r^4 + k3 r^6)] = 0 as a polynomial in r^2
    roots = np.roots([7 * k3, 5 * k2, 3 * k1, 1.0])
    turning = roots.real[(np.abs(roots.imag) < 1e-12) & (roots.real > 0)]
    return float(turning.min(initial=np.inf))


@numba.njit(cache=True)
def _project(points, T_cam_lidar, K, distortion, largest_radius2, size, min_depth_m, uv, depth_cam):
    # Terms are added in a fixed order and without fastmath: the numpy twin in the tests is equal
    # to the last bit.
    k1, k2, p1, p2, k3 = distortion
    is_rectified = not np.any(distortion)
    for i in range(len(points)):
        x_lidar = np.float64(points[i, 0])
        y_lidar = np.float64(points[i, 1])
        z_lidar = np.float64(points[i, 2])
        T = T_cam_lidar
        x = T[0, 0] * x_lidar + T[0, 1] * y_lidar + T[0, 2] * z_lidar + T[0, 3]
        y = T[1, 0] * x_lidar + T[1, 1] * y_lidar + T[1, 2] * z_lidar + T[1, 3]
        depth = T[2, 0] * x_lidar + T[2, 1] * y_lidar + T[2, 2] * z_lidar + T[2, 3]
        depth_cam[i] = depth
        uv[i, 0] = NOT_SEEN
        uv[i, 1] = NOT_SEEN
        if not depth > min_depth_m:  # also NaN
            continue
        x /= depth
        y /= depth
        if not is_rectified:
            r2 = x * x + y * y
            if not r2 < largest_radius2:
                continue
            radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
            x_straight = x
            x = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x)
            y = y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x_straight * y
        u = K[0, 0] * x + K[0, 1] * y + K[0, 2]
        v = K[1, 0] * x + K[1, 1] * y + K[1, 2]
        if 0.0 < u < size[0] - 1.0 and 0.0 < v < size[1] - 1.0:
            uv[i, 0] = np.int16(np.rint(u))
            uv[i, 1] = np.int16(np.rint(v))

import dataclasses
import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.geometry import invert_rigid, rigid, rotation_from_quaternion
from pipeline.projection import project, project_with_depth
from pipeline.types import Camera
from tests.pipeline.recordings import Kitti, recording

# Camera looking along LiDAR x: u grows to the right (-y), v downwards (-z), depth = x.
LOOK_AHEAD = rigid(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.zeros(3))
K = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])


def _camera(**changes):
    camera = Camera("CAM", "token", "a.jpg", 81, 101, K, LOOK_AHEAD, 0)
    return dataclasses.replace(camera, **changes)


def _points(*rows):
    return np.array(rows, np.float32)


def _project_slowly(points, camera, min_depth_m=1.0):
    """Plain numpy twin of a rectified camera, sums in the same order, so equal to the last bit."""
    xyz, T, K = points[:, :3].astype(np.float64), camera.T_cam_lidar, camera.K
    x, y, z = (
        T[r, 0] * xyz[:, 0] + T[r, 1] * xyz[:, 1] + T[r, 2] * xyz[:, 2] + T[r, 3] for r in range(3)
    )
    with np.errstate(all="ignore"):
        x, y = x / z, y / z
        u = K[0, 0] * x + K[0, 1] * y + K[0, 2]
        v = K[1, 0] * x + K[1, 1] * y + K[1, 2]
        seen = (
            (z > min_depth_m) & (u > 0) & (u < camera.width - 1) & (v > 0) & (v < camera.height - 1)
        )
    uv = np.full((len(points), 2), -1, np.int16)
    uv[seen] = np.rint(np.stack([u[seen], v[seen]], axis=1))
    return uv, z.astype(np.float32)


def test_points_by_hand():
    uv, depth = project_with_depth(
        _points(
            [2, 0.1, 0.2],  # camera (-0.1, -0.2, 2): u = 50 - 5, v = 40 - 10
            [4, -1, -1],  # camera (1, 1, 4): u = 50 + 25, v = 40 + 25
            [-2, 0.1, 0.2],  # behind
            [2, 0, 0],  # principal point
        ),
        _camera(),
    )
    assert uv.dtype == np.int16
    assert uv.tolist() == [[45, 30], [75, 65], [-1, -1], [50, 40]]
    assert depth.tolist() == [2, 4, -2, 2]


def test_borders_and_depth_are_strict():
    # x = 2: y = 1 gives u = 0 and y = -1 gives u = 100 = W - 1; z = 0.8 gives v = 0
    edge = _points([2, 1, 0], [2, -1, 0], [2, 0, 0.8], [2, 0, -0.8], [1, 0, 0])
    assert (project(edge, _camera()) == -1).all()
    inside = _points([2, 0.999, 0], [2, -0.999, 0], [2, 0, 0.799], [2, 0, -0.799], [1.001, 0, 0])
    assert project(inside, _camera()).tolist() == [[0, 40], [100, 40], [50, 0], [50, 80], [50, 40]]
    assert project(_points([1, 0, 0]), _camera(), min_depth_m=0.5).tolist() == [[50, 40]]


def test_halves_round_to_even_as_numpy_does():
    # u = 50 - 100 y / 2 with y = 0.09 and 0.11 would not be exact in float32; K makes it so
    halves = _camera(K=np.array([[128.0, 0, 50], [0, 128, 40], [0, 0, 1]]))
    # y / x = 1/256 and 3/256: u = 49.5 and 48.5
    assert project(_points([2, 2 / 256, 0], [2, 6 / 256, 0]), halves)[:, 0].tolist() == [50, 48]


def test_further_columns_are_ignored_and_nan_is_not_seen():
    points = np.array([[2, 0.1, 0.2, 7, 9], [np.nan, 0, 0, 0, 0], [2, np.nan, 0, 0, 0]], np.float32)
    assert project(points, _camera()).tolist() == [[45, 30], [-1, -1], [-1, -1]]


def test_no_points_give_no_pixels():
    assert project(np.empty((0, 4), np.float32), _camera()).shape == (0, 2)


@settings(max_examples=60)
@given(
    points=hnp.arrays(np.float32, (40, 3), elements=st.floats(-60, 60, width=32)),
    quaternion=hnp.arrays(np.float64, 4, elements=st.floats(0.1, 1)),
    translation=hnp.arrays(np.float64, 3, elements=st.floats(-3, 3)),
    focal=st.floats(20, 2000),
)
def test_equal_to_the_slow_twin(points, quaternion, translation, focal):
    camera = _camera(
        T_cam_lidar=rigid(rotation_from_quaternion(quaternion), translation),
        K=np.array([[focal, 0.3, 51.7], [0, focal * 1.01, 39.2], [0, 0, 1]]),
    )
    uv, depth = project_with_depth(points, camera)
    uv_slow, depth_slow = _project_slowly(points, camera)
    np.testing.assert_array_equal(uv, uv_slow)
    np.testing.assert_array_equal(depth, depth_slow)


@settings(max_examples=40)
@given(
    pixels=hnp.arrays(np.float64, (20, 2), elements=st.floats(1, 79)),
    depth=hnp.arrays(np.float64, 20, elements=st.floats(1.5, 100)),
    quaternion=hnp.arrays(np.float64, 4, elements=st.floats(0.1, 1)),
)
def test_a_pixel_lifted_to_its_depth_comes_back(pixels, depth, quaternion):
    T_cam_lidar = rigid(rotation_from_quaternion(quaternion), np.array([0.3, -1.2, 0.7]))
    rays = np.linalg.solve(K, np.column_stack([pixels, np.ones(20)]).T).T
    T_lidar_cam = invert_rigid(T_cam_lidar)
    points = (rays * depth[:, None]) @ T_lidar_cam[:3, :3].T + T_lidar_cam[:3, 3]
    uv, depth_cam = project_with_depth(points.astype(np.float32), _camera(T_cam_lidar=T_cam_lidar))
    # float32 at 100 m is good to 8e-6 m; 0.5 px of rounding plus that
    assert np.abs(uv - pixels).max() <= 0.5 + 1e-3
    np.testing.assert_allclose(depth_cam, depth, rtol=1e-5)


def test_order_of_points_does_not_matter():
    rng = np.random.default_rng(0)
    points, order = rng.uniform(-20, 20, (500, 4)).astype(np.float32), rng.permutation(500)
    uv = project(points, _camera())
    assert (uv[:, 0] >= 0).any() and (uv[:, 0] < 0).any()
    np.testing.assert_array_equal(project(points[order], _camera()), uv[order])


def test_distortion_agrees_with_opencv():
    distortion = (-0.3, 0.08, 0.002, -0.001, 0.01)
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(2, 20, 300), *(rng.uniform(-0.4, 0.4, (2, 300)))]).astype(
        np.float32
    )
    points[:, 1:] *= points[:, :1]
    xyz_cam = points.astype(np.float64) @ LOOK_AHEAD[:3, :3].T
    expected, _ = cv2.projectPoints(xyz_cam, np.zeros(3), np.zeros(3), K, np.array(distortion))
    camera = _camera(distortion=distortion)
    uv = project(points, camera)
    seen = uv[:, 0] >= 0
    assert seen.sum() > 200
    np.testing.assert_array_equal(uv[seen], np.rint(expected[seen, 0]))
    assert (uv[seen] != project(points, _camera())[seen]).any()


def test_distortion_does_not_fold_far_points_into_the_image():
    # r (1 - 0.3 r^2) turns back at r^2 = 1 / 0.9; at r = 1.8 it gives 0.05, deep inside the image
    camera = _camera(distortion=(-0.3, 0.0, 0.0, 0.0, 0.0))
    assert project(_points([2, -3.6, 0]), camera).tolist() == [[-1, -1]]
    assert project(_points([2, -0.6, 0]), camera).tolist() == [[79, 40]]  # 50 + 100 * 0.3 * 0.973


@pytest.mark.parametrize("shape", [(3,), (5, 2)])
def test_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"points must be \[N, >=3\]"):
        project(np.zeros(shape, np.float32), _camera())


def _nuscenes_keyframe():
    """Read the one real keyframe straight from its tables, without our reader."""
    root = recording("nuscenes")
    tables = {
        name: {
            row["token"]: row for row in json.loads((root / f"v1.0-mini/{name}.json").read_text())
        }
        for name in ("sample_data", "calibrated_sensor", "ego_pose", "sensor")
    }

    def matrix(row):
        return rigid(rotation_from_quaternion(row["rotation"]), np.array(row["translation"]))

    shots = {}
    for row in tables["sample_data"].values():
        mount = tables["calibrated_sensor"][row["calibrated_sensor_token"]]
        ego = tables["ego_pose"][row["ego_pose_token"]]
        shots[tables["sensor"][mount["sensor_token"]]["channel"]] = (row, mount, ego)
    row, mount, ego = shots.pop("LIDAR_TOP")
    points = np.fromfile(root / row["filename"], np.float32).reshape(-1, 5)
    T_world_lidar = matrix(ego) @ matrix(mount)
    cameras = {
        name: Camera(
            name,
            row["token"],
            row["filename"],
            row["height"],
            row["width"],
            np.array(mount["camera_intrinsic"]),
            invert_rigid(matrix(mount)) @ invert_rigid(matrix(ego)) @ T_world_lidar,
            row["timestamp"] * 1000,
        )
        for name, (row, mount, ego) in shots.items()
        if name.startswith("CAM_")
    }
    return points, cameras


@pytest.mark.data
def test_real_nuscenes_keyframe_has_the_known_counts():
    points, cameras = _nuscenes_keyframe()
    seen = {name: int((project(points, c)[:, 0] >= 0).sum()) for name, c in cameras.items()}
    assert seen == {
        "CAM_FRONT": 3056,
        "CAM_FRONT_RIGHT": 3076,
        "CAM_FRONT_LEFT": 3700,
        "CAM_BACK": 4822,
        "CAM_BACK_LEFT": 4091,
        "CAM_BACK_RIGHT": 3370,
    }


@pytest.mark.data
def test_real_kitti_scan_equals_the_slow_twin():
    kitti = Kitti()
    lines = [line.split(":") for line in (kitti.root / "calib.txt").open() if ":" in line]
    calib = {name: np.array(values.split(), float).reshape(3, 4) for name, values in lines}
    camera = _camera(
        K=calib["P0"][:, :3],
        T_cam_lidar=np.vstack([calib["Tr"], [0, 0, 0, 1]]),
        height=376,
        width=1241,
    )
    points = kitti.scan(0)
    uv = project(points, camera)
    np.testing.assert_array_equal(uv, _project_slowly(points, camera)[0])
    assert 0.14 < (uv[:, 0] >= 0).mean() < 0.17  # 81 degrees of view, minus what is above it

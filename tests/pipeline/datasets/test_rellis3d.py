import shutil

import numpy as np
import pytest

from pipeline.datasets import rellis3d
from pipeline.errors import UserError
from pipeline.manifest import load_manifest
from tests.pipeline.datasets.writers.rellis3d import transform_yaml, write_rellis3d

MANIFEST = load_manifest("rellis3d")


@pytest.fixture
def rellis(drive, tmp_path):
    write_rellis3d(tmp_path, drive, MANIFEST)
    return tmp_path


def at(matrix, point):
    return (matrix @ [*point, 1])[:3]


def test_transforms_yaml_is_inverted_by_hand(rellis):
    # The file maps camera to LiDAR. q = (1, -1, 1, -1) / 2 takes camera z (ahead) to LiDAR x and
    # camera x (right) to LiDAR -y; the camera sits 0.5 m ahead of the LiDAR and 0.25 m below it.
    # A point 4.5 m ahead, 1 m left, 1 m up is 4 m ahead of the camera, 1 m left, 1.25 m above:
    # (-1, -1.25, 4). Taken forward the matrix would give 1 + 0.5 = 1.5 first.
    path = rellis / "Rellis_3D_cam_intrinsic/Rellis-3D/00000/transforms.yaml"
    path.write_text(
        "os1_cloud_node-pylon_camera_node:\n"
        "  q: {w: 0.5, x: -0.5, y: 0.5, z: -0.5}\n  t: {x: 0.5, y: 0.0, z: -0.25}\n"
    )
    camera = rellis3d.index(rellis, MANIFEST, "os1")[0].cameras[0]
    np.testing.assert_allclose(at(camera.T_cam_lidar, [4.5, 1, 1]), [-1, -1.25, 4], atol=1e-12)
    assert camera.distortion == (-0.134313, -0.025905, 0.002181, 0.00084, 0.0)


def test_the_velodyne_goes_through_the_ouster(rellis):
    # The Velodyne sits 1 m above the Ouster: its pose and its camera follow by that offset.
    os1 = rellis3d.index(rellis, MANIFEST, "os1")
    for name in ("00000", "00001"):
        folder = rellis / "Rellis-3D" / name
        for kind in ("kitti_bin", "semantickitti_label_id"):
            shutil.copytree(folder / f"os1_cloud_node_{kind}", folder / f"vel_cloud_node_{kind}")
        up = np.eye(4)
        up[2, 3] = 1.0
        (folder / "vel2os1.yaml").write_text(transform_yaml("vel2os1", up))
    vel = rellis3d.index(rellis, MANIFEST, "vel")
    assert [f.frame_id for f in vel] == [f.frame_id for f in os1]
    assert vel[3].points_path.endswith("00000/vel_cloud_node_kitti_bin/000003.bin")
    for a, b in ((vel[0], os1[0]), (vel[5], os1[5])):
        wanted = at(b.T_world_lidar, [1, 2, 4])
        np.testing.assert_allclose(at(a.T_world_lidar, [1, 2, 3]), wanted, atol=1e-9)
    wanted = at(os1[0].cameras[0].T_cam_lidar, [9, 2, 4])
    np.testing.assert_allclose(at(vel[0].cameras[0].T_cam_lidar, [9, 2, 3]), wanted, atol=1e-9)
    (rellis / "Rellis-3D/00000/vel2os1.yaml").unlink()
    with pytest.raises(
        UserError, match="must hold 00000/vel2os1.yaml or vel2os1.yaml, got neither"
    ):
        rellis3d.index(rellis, MANIFEST, "vel")


def test_pixels_without_a_return_go_with_their_labels(rellis):
    frame = rellis3d.index(rellis, MANIFEST, "os1")[0]
    points = rellis3d.load_points(rellis, frame.points_path).points
    stored = np.fromfile(rellis / frame.points_path, "<f4").reshape(-1, 4)
    assert len(points) < len(stored) == frame.max_points
    assert points[:, :3].any(axis=1).all()
    assert len(rellis3d.load_labels(rellis, frame, len(points)).semantic) == len(points)
    with pytest.raises(UserError, match=r"must have 3 returns, got \d+"):
        rellis3d.load_labels(rellis, frame, 3)
    label = rellis / frame.label_path
    label.write_bytes(label.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"labels must be one per point, got \d+ for \d+ points"):
        rellis3d.load_labels(rellis, frame, len(points))
    (rellis / frame.points_path).write_bytes(bytes(16 * 5))
    with pytest.raises(UserError, match=r"a scan must have a return, got 5 points that are all"):
        rellis3d.load_points(rellis, frame.points_path)


def test_times_start_with_the_first_image(rellis):
    frames = rellis3d.index(rellis, MANIFEST, "os1")
    assert frames[0].t_ns == frames[0].cameras[0].t_ns == 1_581_624_652_750_000_000
    assert frames[3].t_ns - frames[0].t_ns == 300_000_000  # 10 Hz


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("transforms.yaml", "a: [", "transforms.yaml: must have the entry 'os1_cloud_node-pylon"),
        ("transforms.yaml", "os1_cloud_node-pylon_camera_node:\n  q: {w: 1, x: 0, y: 0}\n",
         "got KeyError 'z'"),
        ("transforms.yaml", "vel2os1: {}", "got KeyError 'os1_cloud_node-pylon_camera_node'"),
        ("camera_info.txt", "1 2 3", "must be the four numbers fx fy cx cy, got '1 2 3'"),
    ],
)  # fmt: skip
def test_broken_calibration_is_refused(rellis, name, text, message):
    (rellis / "Rellis_3D_cam_intrinsic/Rellis-3D/00000" / name).write_text(text)
    with pytest.raises(UserError, match=message):
        rellis3d.index(rellis, MANIFEST, "os1")


def test_a_calib_without_its_row_is_refused(rellis):
    path = rellis / "Rellis-3D/00000/calib.txt"
    path.write_text("P0: 1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(UserError, match=r"00000/calib.txt: must have the row 'Tr', got P0"):
        rellis3d.index(rellis, MANIFEST, "os1")
    path.write_text("Tr: 1 0 0 0 0 1 0 0 0 0 1 0\n")
    assert rellis3d.index(rellis, MANIFEST, "os1")[0].T_world_lidar is not None


def test_text_files_that_are_no_text_are_refused(rellis):
    (rellis / "Rellis_3D_cam_intrinsic/Rellis-3D/00000/camera_info.txt").write_bytes(b"\x80\xff")
    with pytest.raises(UserError, match="camera_info.txt: must be the four numbers"):
        rellis3d.index(rellis, MANIFEST, "os1")
    shutil.rmtree(rellis / "Rellis_3D_cam_intrinsic")
    shutil.rmtree(rellis / "Rellis-3D/00000/pylon_camera_node")
    shutil.rmtree(rellis / "Rellis-3D/00001/pylon_camera_node")
    (rellis / "pt_val.lst").write_bytes(b"\x80\xff\n")
    with pytest.raises(UserError, match="pt_val.lst: line 1 must be '<sequence>"):
        rellis3d.index(rellis, MANIFEST, "os1")


def test_absent_files_are_named(rellis, tmp_path):
    (rellis / "Rellis_3D_cam_intrinsic/Rellis-3D/00001/transforms.yaml").unlink()
    with pytest.raises(UserError, match="must hold 00001/transforms.yaml or transforms.yaml"):
        rellis3d.index(rellis, MANIFEST, "os1")
    (tmp_path / "pt_train.lst").write_text("000000.bin 000000.label\n")
    shutil.rmtree(rellis / "Rellis-3D/00001")
    with pytest.raises(UserError, match=r"pt_train.lst: line 1 must be '<sequence>/<folder>/"):
        rellis3d.index(rellis, MANIFEST, "os1")
    for path in tmp_path.glob("pt_*.lst"):
        path.unlink()
    with pytest.raises(UserError, match="must hold the list files pt_train.lst, .*got none"):
        rellis3d.index(rellis, MANIFEST, "os1")
    with pytest.raises(UserError, match="such as 00000/vel_cloud_node_kitti_bin, got none"):
        rellis3d.index(rellis, MANIFEST, "vel")

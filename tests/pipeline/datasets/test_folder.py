import numpy as np
import pytest
import yaml

from pipeline.datasets import folder
from pipeline.errors import UserError
from pipeline.manifest import load_manifest
from tests.pipeline.datasets.writers.folder import ply_bytes, write_folder

MANIFEST = load_manifest("folder")
MOUNT = [[0, -1, 0, 0], [0, 0, -1, 1], [1, 0, 0, 0]]


def cloud(path, points):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.asarray(points, "<f4").tobytes())


def index(root):
    return folder.index(root, MANIFEST, None)


def calibrate(root, **changes):
    camera = {"width": 8, "height": 6, "K": [10, 0, 4, 0, 10, 3, 0, 0, 1], "T_cam_lidar": MOUNT}
    text = yaml.safe_dump({"cameras": {"front": camera | changes}})
    (root / "calibration.yaml").write_text(text)


@pytest.fixture
def car(tmp_path):
    for k in range(3):
        cloud(tmp_path / f"home/clouds/{k}.bin", [[1, 2, 3, 0.5]] * (k + 1))
    return tmp_path


def test_clouds_alone_are_enough(car):
    frames = index(car)
    assert [f.frame_id for f in frames] == ["home/0", "home/1", "home/2"]
    assert [f.max_points for f in frames] == [1, 2, 3]
    assert all(f.cameras == () and f.T_world_lidar is None for f in frames)
    assert frames[0].splits[0] == "train" and frames[1].t_ns == 100_000_000
    assert folder.load_labels(car, frames[0], 1) is None


def test_numbers_are_sorted_as_numbers(car):
    cloud(car / "home/clouds/10.bin", [[1, 2, 3, 4]])
    assert [f.frame_id for f in index(car)] == [f"home/{k}" for k in (0, 1, 2, 10)]


def test_T_cam_lidar_maps_lidar_to_camera_by_hand(car):
    # LiDAR (4, 1, 2) -> camera (-1, -2 + 1, 4); 12 numbers or 16, flat or in rows.
    (car / "home/images/front").mkdir(parents=True)
    (car / "home/images/front/1.jpg").write_bytes(b"")
    for matrix in (MOUNT, [*MOUNT, [0, 0, 0, 1]], np.ravel(MOUNT).tolist()):
        calibrate(car, T_cam_lidar=matrix, distortion=[0.1, 0.2, 0.0, 0.0])
        frames = index(car)
        camera = frames[1].cameras[0]
        np.testing.assert_allclose((camera.T_cam_lidar @ [4, 1, 2, 1])[:3], [-1, -1, 4])
        assert camera.distortion == (0.1, 0.2, 0.0, 0.0)
        assert frames[0].cameras == (None,)


def test_points_without_a_return_go_with_their_labels(car):
    points = np.array([[1, 2, 3, 4], [np.nan, 0, 0, 0], [0, 0, 0, 0], [4, 5, 6, 7]], np.float32)
    (car / "home/clouds/1.bin").unlink()
    (car / "home/clouds/1.ply").write_bytes(ply_bytes(points, "binary_little_endian"))
    (car / "home/labels").mkdir()
    np.save(car / "home/labels/1.npy", np.array([10, 11, 13, 15]))
    frame = index(car)[1]
    assert frame.max_points == 4
    loaded = folder.load_points(car, frame.points_path)
    assert loaded.points.tolist() == [[1, 2, 3, 4], [4, 5, 6, 7]]
    assert folder.load_labels(car, frame, 2).semantic.tolist() == [10, 15]
    np.save(car / "home/labels/1.npy", np.array([10, 11]))
    with pytest.raises(UserError, match="labels must be one per point, got 2 for 4 points"):
        folder.load_labels(car, frame, 2)
    (car / "home/clouds/1.ply").write_bytes(ply_bytes(points[1:3], "binary_little_endian"))
    with pytest.raises(UserError, match="a cloud must have a point, got 2 without a return"):
        folder.load_points(car, frame.points_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"K": [1, 2]}, "camera 'front': K must be 9 numbers, got"),
        ({"K": "wide"}, "camera 'front': K must be 9 numbers, got wide"),
        ({"distortion": [1, 2, 3]}, "distortion must be 0 or 4 or 5 numbers"),
        ({"width": 0}, r"height and width must be positive whole numbers, got \[6, 0\]"),
        ({"T_cam_lidar": [1] * 12}, "T_cam_lidar must hold a rotation .*maps LiDAR points to"),
        ({"T_lidar_cam": MOUNT}, "unknown name 'T_lidar_cam'; did you mean 'T_cam_lidar'"),
    ],
)
def test_broken_calibration_is_refused(car, changes, message):
    calibrate(car, **changes)
    with pytest.raises(UserError, match=message):
        index(car)


def test_broken_files_beside_the_clouds_are_refused(car):
    (car / "calibration.yaml").write_text("cameras: {front: {width: 8}}")
    with pytest.raises(UserError, match=r"camera 'front': must have .* got none of \['height', 'K"):
        index(car)
    (car / "calibration.yaml").write_text("front: {}")
    with pytest.raises(UserError, match=r"calibration.yaml: must have 'cameras'.*got \['front'\]"):
        index(car)
    (car / "calibration.yaml").write_text("cameras: [")
    with pytest.raises(UserError, match="calibration.yaml: must be YAML, got"):
        index(car)
    (car / "calibration.yaml").unlink()
    (car / "home/poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(
        UserError, match="poses.txt: must have a line for every scan up to 2, got 1"
    ):
        index(car)
    (car / "home/poses.txt").unlink()
    (car / "splits.yaml").write_text("train: [hom]\n")
    with pytest.raises(UserError, match="scene in train: unknown name 'hom'; did you mean 'home'"):
        index(car)
    (car / "splits.yaml").write_text("trian: [home]\n")
    with pytest.raises(UserError, match="split: unknown name 'trian'; did you mean 'train'"):
        index(car)


def test_images_of_a_camera_that_the_calibration_lacks_are_told(car):
    for name in ("front", "rear"):
        (car / f"home/images/{name}").mkdir(parents=True)
        (car / f"home/images/{name}/1.jpg").write_bytes(b"")
    calibrate(car)
    with pytest.raises(
        UserError, match=r"calibration.yaml: must have the camera 'rear', whose .*home/images/rear"
    ):
        index(car)
    (car / "calibration.yaml").unlink()
    with pytest.raises(UserError, match="must have the camera 'front', whose"):
        index(car)


def test_an_empty_folder_says_where_the_layout_is(tmp_path):
    with pytest.raises(UserError, match=r"must hold <scene>/clouds/ .*docs/datasets.md"):
        index(tmp_path)


def test_every_cloud_format_is_written(drive, tmp_path):
    """The round trip of this set would pass without one of them."""
    write_folder(tmp_path / "car", drive, MANIFEST)
    suffixes = {path.suffix for path in (tmp_path / "car").glob("*/clouds/*")}
    assert suffixes == {".bin", ".npy", ".pcd", ".ply"}

import re
import struct

import cv2
import numpy as np
import pytest

from pipeline import formats
from pipeline.errors import UserError
from pipeline.types import Camera


def write(path, *arrays):
    path.write_bytes(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays))
    return path


def test_kitti_scan_and_label_by_hand(tmp_path):
    path = tmp_path / "0.bin"
    path.write_bytes(struct.pack("<8f", 1, 2, 3, 0.5, -1, -2, -3, 0.25))
    cloud = formats.read_kitti_points(path)
    assert cloud.points.tolist() == [[1, 2, 3, 0.5], [-1, -2, -3, 0.25]]
    assert cloud.points.dtype == np.float32 and cloud.points.flags.writeable
    assert cloud.ring.tolist() == [255, 255]
    label = tmp_path / "0.label"
    label.write_bytes(struct.pack("<2I", (7 << 16) | 10, (65535 << 16) | 259))
    labels = formats.read_kitti_labels(label, 2)
    assert labels.semantic.tolist() == [10, 259] and labels.instance.tolist() == [7, 65535]
    assert labels.semantic.dtype == labels.instance.dtype == np.uint16


def test_nuscenes_scan_keeps_the_ring_apart(tmp_path):
    path = write(tmp_path / "a.pcd.bin", np.array([[1, 2, 3, 200, 31], [4, 5, 6, 0, 0]], "<f4"))
    cloud = formats.read_nuscenes_points(path)
    assert cloud.points.tolist() == [[1, 2, 3, 200], [4, 5, 6, 0]]
    assert cloud.ring.tolist() == [31, 0] and cloud.ring.dtype == np.uint8
    write(path, np.array([[1, 2, 3, 200, 255]], "<f4"))
    with pytest.raises(UserError, match="ring must be in 0..254, got 255..255"):
        formats.read_nuscenes_points(path)


def test_a_file_cut_short_is_told_apart_from_a_smaller_scan(tmp_path):
    path = tmp_path / "000000.bin"
    path.write_bytes(bytes(1234))
    message = (
        f"{path}: points must be a multiple of 16 bytes, got 1234 bytes; "
        "the file is cut short, copy it again"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        formats.read_kitti_points(path)
    with pytest.raises(UserError, match="must be a multiple of 20 bytes"):
        formats.read_nuscenes_points(path)
    with pytest.raises(UserError, match="labels must be a multiple of 4 bytes, got 1234"):
        formats.read_kitti_labels(path, 3)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(
        UserError, match=r"x.bin: points must be a readable file, got 'No such file"
    ):
        formats.read_kitti_points(tmp_path / "x.bin")
    (tmp_path / "e.bin").write_bytes(b"")
    with pytest.raises(UserError, match="at least one record, got 0 bytes"):
        formats.read_kitti_points(tmp_path / "e.bin")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_counted(tmp_path, bad):
    path = write(
        tmp_path / "0.bin", np.array([[bad, bad, 0, 0], [0, 0, 0, bad], [1, 1, 1, 1]], "<f4")
    )
    with pytest.raises(UserError, match="points must be finite, got 2 of 3 with NaN or inf"):
        formats.read_kitti_points(path)


def test_labels_must_be_one_per_point(tmp_path):
    path = write(tmp_path / "a.bin", np.array([0, 24, 31], "u1"))
    assert formats.read_nuscenes_labels(path, 3).tolist() == [0, 24, 31]
    with pytest.raises(UserError, match="labels must be one per point, got 3 for 4 points"):
        formats.read_nuscenes_labels(path, 4)


def test_panoptic_keeps_things_only(tmp_path):
    path = tmp_path / "p.npz"
    np.savez_compressed(path, data=np.array([17001, 24000, 17999, 0], np.uint16))
    assert formats.read_nuscenes_panoptic(path, 4).tolist() == [17001, 0, 17999, 0]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="instances must be an .npz with the array 'data'"):
        formats.read_nuscenes_panoptic(path, 4)


def test_point_files_are_counted_by_size_and_missed_together(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(50))
    files = formats.PointFiles(tmp_path, 16)
    assert files.max_points("a.bin") == 3
    files.check_complete("never shown")
    for k in range(12):
        assert files.max_points(f"gone{k}.bin") == 0
    with pytest.raises(UserError, match=r"got 12 missing: gone0.bin, .*gone9.bin \.\.\.; do this"):
        files.check_complete("do this")


def camera(path, height, width):
    return Camera("c", "t", path, height, width, np.eye(3), np.eye(4), 0)


def test_image_must_have_the_size_of_the_index(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    cv2.imwrite(str(tmp_path / "g.png"), grey)
    image = formats.read_camera(tmp_path, camera("g.png", 3, 4))
    assert image.shape == (3, 4, 3) and image.dtype == np.uint8
    assert (image == grey[..., None]).all()
    with pytest.raises(UserError, match=r"image must be \[4, 3\] as the index says, got \[3, 4\]"):
        formats.read_camera(tmp_path, camera("g.png", 4, 3))
    whole = (tmp_path / "g.png").read_bytes()
    (tmp_path / "g.png").write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"g\.png"):
        formats.read_camera(tmp_path, camera("g.png", 3, 4))


def test_color_order_is_rgb(tmp_path):
    bgr = np.zeros((2, 2, 3), np.uint8)
    bgr[..., 2] = 200  # red in OpenCV's order
    cv2.imwrite(str(tmp_path / "r.png"), bgr)
    image = formats.read_camera(tmp_path, camera("r.png", 2, 2))
    assert image[0, 0].tolist() == [200, 0, 0]

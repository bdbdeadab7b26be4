import cv2
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.regions import Segmentation
from pipeline.superpixels.table import SOURCES
from pipeline.types import Camera

CAMERA = Camera("CAM_FRONT", "abc123", "a.jpg", 4, 6, np.eye(3), np.eye(4), 0)
IMAGE = np.zeros((4, 6, 3), np.uint8)


def _segment(folder, name="images"):
    module = SOURCES.load(name)
    return module.load(module.Config(folder=str(folder)), "cpu").segment(IMAGE, CAMERA)


def _save(folder, array):
    assert cv2.imwrite(str(folder / "abc123.png"), array)


@pytest.mark.parametrize("name", ["images", "oracle"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ids_come_back_number_for_number(tmp_path, dtype, name):
    top = np.iinfo(dtype).max
    ids = np.array([[0, 0, 7, 7, 9, top]] * 4, dtype)
    _save(tmp_path, ids)
    segmentation = _segment(tmp_path, name)
    assert segmentation.ids.dtype == np.uint16
    np.testing.assert_array_equal(segmentation.ids, ids)
    assert segmentation.num_segments == 3  # 7, 9 and the largest; 0 is none


def test_missing_file_names_camera_and_path(tmp_path):
    with pytest.raises(UserError, match=r"CAM_FRONT/abc123: superpixels must be in .*abc123\.png"):
        _segment(tmp_path)


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((6, 4), np.uint8), r"got uint8 \[6, 4\]"),
        (np.zeros((2, 3), np.uint16), r"got uint16 \[2, 3\]"),
        (np.zeros((4, 6, 3), np.uint8), r"got uint8 \[4, 6, 3\]"),
        (np.zeros((4, 6, 4), np.uint8), r"got uint8 \[4, 6, 4\]"),
    ],
    ids=["turned", "store scale", "RGB", "RGBA"],
)
def test_other_sizes_and_colors_are_refused(tmp_path, array, got):
    _save(tmp_path, array)
    with pytest.raises(
        UserError, match=r"superpixels must be uint8 or uint16 \[4, 6\], " + got
    ) as caught:
        _segment(tmp_path)
    assert "\n" not in str(caught.value)


def test_truncated_file_is_refused(tmp_path):
    _save(tmp_path, np.arange(24, dtype=np.uint8).reshape(4, 6))
    path = tmp_path / "abc123.png"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="image is cut off"):
        _segment(tmp_path)


def test_folder_must_be_given_and_exist(tmp_path):
    module = SOURCES.load("images")
    with pytest.raises(UserError, match="folder must be set"):
        module.load(module.Config(), "cpu")
    with pytest.raises(UserError, match="folder must exist, got .*nowhere"):
        module.load(module.Config(folder=str(tmp_path / "nowhere")), "cpu")


def test_segmentation_refuses_what_the_store_cannot_hold():
    with pytest.raises(ValueError, match=r"must be uint16 \[H, W\], got int64 \[2, 2\]"):
        Segmentation(np.zeros((2, 2), np.int64))
    ids = np.array([[0, 3]], np.uint16)
    with pytest.raises(ValueError, match="one slot per id up to 3, got 3 slots"):
        Segmentation(ids, np.full(3, -1, np.int16))
    assert Segmentation(ids, np.full(4, -1, np.int16)).num_segments == 1
    assert Segmentation(np.zeros((2, 2), np.uint16)).num_segments == 0


def test_unknown_source_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'slic'"):
        SOURCES.load("slick")

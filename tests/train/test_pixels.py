import cv2
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.image import decode_jpeg, encode_jpeg, jpeg_size
from train.pixels import Jpeg, cut_image, reduction


def ramp(height, width):
    """Red grows with the column, green with the row; smooth, so that JPEG keeps it."""
    row, col = np.mgrid[:height, :width]
    image = np.stack([col / width, row / height, 0.5 + 0 * row], axis=2) * 200 + 20
    return np.rint(image).astype(np.uint8)


def test_the_size_comes_from_the_header():
    data = encode_jpeg(ramp(46, 70))
    assert jpeg_size(data) == (46, 70) and Jpeg(data).shape == (46, 70, 3)
    with pytest.raises(UserError, match="must start as a JPEG"):
        jpeg_size(np.zeros(10, np.uint8))
    with pytest.raises(UserError, match="header is cut off"):
        jpeg_size(data[:30])


def test_a_jpeg_is_only_shrunk_where_the_box_stays_large_enough():
    assert reduction((0, 0, 448, 832), 224, 416) == 2
    assert reduction((9, 9, 447, 832), 224, 416) == reduction((9, 9, 448, 831), 224, 416) == 1
    assert reduction((0, 0, 900, 1664), 224, 416) == 4


@pytest.mark.parametrize("box", [(0, 0, 240, 480), (7, 13, 101, 202), (33, 9, 195, 391)])
@pytest.mark.parametrize("size", [(24, 48), (48, 96), (90, 181)])
def test_bytes_and_pixels_give_the_same_cut(box, size):
    data = encode_jpeg(ramp(240, 480))
    found = cut_image(Jpeg(data), box, *size)
    assert found.shape == (*size, 3) and found.dtype == np.uint8
    top, left, height, width = box
    col = left + (np.arange(size[1]) + 0.5) * width / size[1] - 0.5  # centers, source pixels
    row = top + (np.arange(size[0]) + 0.5) * height / size[0] - 0.5
    # one source pixel is 0.4 (red) and 0.8 (green) of a step: a shift of half a pixel would show
    assert abs((found[..., 0] - (col / 480 * 200 + 20)).mean()) < 0.25
    assert abs((found[..., 1] - (row / 240 * 200 + 20)[:, None]).mean()) < 0.35
    expected = cut_image(decode_jpeg(data), box, *size)
    assert np.abs(found.astype(int) - expected).max() <= 4
    if reduction(box, *size) == 1:
        np.testing.assert_array_equal(found, expected)


def test_half_a_jpeg_is_the_mean_of_its_pixels():
    image = cv2.GaussianBlur(np.random.default_rng(0).random((64, 96, 3)) * 255, (9, 9), 3.0)
    data = encode_jpeg(image.astype(np.uint8), 95)
    half, whole = decode_jpeg(data, 2), decode_jpeg(data)
    means = whole.reshape(32, 2, 48, 2, 3).mean((1, 3))
    assert np.abs(half - means).mean() < 2

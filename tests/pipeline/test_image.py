import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.geometry import store_pixels, store_size
from pipeline.image import (
    decode_ids,
    decode_image,
    decode_jpeg,
    encode_jpeg,
    read_size,
    resize_ids,
    resize_image,
)


def _gradient(height, width):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 2, columns * 2, np.full_like(rows, 40)], axis=2).astype(np.uint8)


def _write(path, array):
    bgr = array if array.ndim == 2 else cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(path), bgr)
    return path


def test_png_comes_back_in_rgb_order(tmp_path):
    image = _gradient(20, 30)
    np.testing.assert_array_equal(decode_image(_write(tmp_path / "a.png", image)), image)


def test_gray_image_becomes_three_equal_channels(tmp_path):
    gray = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
    image = decode_image(_write(tmp_path / "a.png", gray))
    assert image.shape == (20, 30, 3)
    np.testing.assert_array_equal(image, np.repeat(gray[:, :, None], 3, axis=2))


def test_jpeg_round_trip_keeps_colors_within_quantization(tmp_path):
    image = _gradient(64, 96)
    data = encode_jpeg(image, quality=95)
    assert data.dtype == np.uint8 and data.ndim == 1
    assert data[:2].tolist() == [0xFF, 0xD8]
    error = np.abs(decode_jpeg(data).astype(int) - image)
    assert error.max() <= 8  # quality 95 quantizes coarse frequencies by 2 to 6 levels
    (tmp_path / "a.jpg").write_bytes(data.tobytes())
    np.testing.assert_array_equal(decode_image(tmp_path / "a.jpg"), decode_jpeg(data))


def test_jpeg_quality_trades_bytes():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert len(encode_jpeg(image, 30)) < len(encode_jpeg(image, 90)) < image.size


def test_exif_turn_is_ignored(tmp_path):
    # APP1: big-endian TIFF with one entry, tag 0x0112 (orientation) = 6 (turn by 90 degrees)
    tiff = bytes.fromhex("4d4d002a00000008000101120003000000010006000000000000")
    exif = b"Exif\x00\x00" + tiff
    jpeg = encode_jpeg(_gradient(40, 60)).tobytes()
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    path = tmp_path / "turned.jpg"
    path.write_bytes(turned)
    assert cv2.imread(str(path)).shape == (60, 40, 3)  # OpenCV's default would turn it
    np.testing.assert_array_equal(decode_image(path), decode_jpeg(np.frombuffer(jpeg, np.uint8)))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path, suffix, share):
    path = _write(tmp_path / f"cut{suffix}", _gradient(200, 120))
    raw = path.read_bytes()
    path.write_bytes(raw[: min(int(len(raw) * share), len(raw) - 1)])
    with pytest.raises(UserError, match=r"cut\.(jpg|png): image is cut off after \d+ bytes"):
        decode_image(path)


def test_zeros_behind_the_end_are_accepted(tmp_path):
    path = _write(tmp_path / "a.jpg", _gradient(40, 40))
    whole = decode_image(path)
    path.write_bytes(path.read_bytes() + bytes(100))
    np.testing.assert_array_equal(decode_image(path), whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "image file is missing"),
        (b"", "must not be empty"),
        (b"<html>404 not found</html>", "must be JPEG or PNG"),
    ],
)
def test_unusable_files_say_so_in_one_line(tmp_path, content, message):
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        decode_image(path)
    assert "\n" not in str(caught.value) and "a.jpg" in str(caught.value)


def test_folder_instead_of_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        decode_image(tmp_path)


def test_truncated_jpeg_bytes_are_refused():
    with pytest.raises(UserError, match="JPEG bytes: image is cut off"):
        decode_jpeg(encode_jpeg(_gradient(40, 40))[:-10])


def test_decode_ids_keeps_16_bits(tmp_path):
    ids = np.array([[0, 1, 300], [65535, 256, 7]], np.uint16)
    back = decode_ids(_write(tmp_path / "ids.png", ids))
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, ids)


def test_resize_image_is_the_mean_of_the_area():
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :, 0] = [[0, 10, 100, 104], [20, 30, 96, 100]]
    assert resize_image(image, 1, 2)[:, :, 0].tolist() == [[15, 100]]


def test_resize_to_the_same_size_changes_nothing():
    image, ids = _gradient(5, 7), np.arange(35, dtype=np.uint16).reshape(5, 7)
    assert resize_image(image, 5, 7) is image
    assert resize_ids(ids, 5, 7) is ids


def test_resize_ids_takes_the_pixel_at_the_center():
    ids = np.arange(1000, 1024, dtype=np.uint16).reshape(4, 6)
    # factor 2: centers fall between pixels 0 and 1, floor((0 + 0.5) * 2) = 1
    assert resize_ids(ids, 2, 3).tolist() == [[1007, 1009, 1011], [1019, 1021, 1023]]


def _assert_store_pixel_takes_one_of_its_own(native_length, store_length):
    numbered = np.arange(native_length, dtype=np.uint16)[None].repeat(2, axis=0)
    for taken in (
        resize_ids(numbered, 2, store_length)[0],
        resize_ids(np.ascontiguousarray(numbered.T), store_length, 2)[:, 0],
    ):
        mapped = store_pixels(taken.astype(np.int64), native_length, store_length)
        np.testing.assert_array_equal(mapped, np.arange(store_length))


@pytest.mark.parametrize("size", [(900, 1600), (376, 1241), (370, 1226), (1280, 1920), (886, 1921)])
@pytest.mark.parametrize("scale", [0.5, 0.25, 0.37])
def test_store_ids_agree_with_store_pixels(size, scale):
    for native_length, store_length in zip(size, store_size(*size, scale), strict=True):
        _assert_store_pixel_takes_one_of_its_own(native_length, store_length)


@settings(max_examples=200)
@given(native=st.integers(2, 3000), share=st.floats(0.02, 1.0))
def test_store_ids_agree_with_store_pixels_at_any_size(native, share):
    _assert_store_pixel_takes_one_of_its_own(native, max(1, round(native * share)))


def test_plain_nearest_would_break_the_agreement():
    row = np.arange(7, dtype=np.uint16)[None].repeat(2, axis=0)
    taken = cv2.resize(row, (4, 2), interpolation=cv2.INTER_NEAREST)[0].astype(np.int64)
    assert (store_pixels(taken, 7, 4) != np.arange(4)).any()


def test_sizes_come_from_the_header_alone(tmp_path):
    image = _gradient(20, 30)
    png, jpeg = _write(tmp_path / "a.png", image), _write(tmp_path / "a.jpg", image)
    assert read_size(png) == read_size(jpeg) == (20, 30)
    whole = jpeg.read_bytes()
    # an EXIF-like block before the size is skipped by its length
    jpeg.write_bytes(whole[:2] + b"\xff\xe1\x00\x06ABCD" + whole[2:])
    assert read_size(jpeg) == (20, 30)
    for content in (b"", b"GIF89a", whole[:10], png.read_bytes()[:20]):
        jpeg.write_bytes(content)
        with pytest.raises(UserError, match="image must be a PNG or JPEG, got"):
            read_size(jpeg)
    with pytest.raises(UserError, match="image cannot be read"):
        read_size(tmp_path / "none.png")


@pytest.mark.parametrize("damage", [bytes(2000), None], ids=["zeros", "cut out"])
def test_a_jpeg_damaged_in_the_middle_is_refused(tmp_path, capfd, damage):
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    raw = encode_jpeg(image).tobytes()
    path, middle = tmp_path / "a.jpg", len(raw) // 2
    path.write_bytes(raw)
    np.testing.assert_array_equal(decode_image(path), decode_jpeg(np.frombuffer(raw, np.uint8)))
    path.write_bytes(raw[:middle] + (damage or b"") + raw[middle + 2000 :])
    with pytest.raises(UserError, match=r"a\.jpg: image must be a whole JPEG, got 'Corrupt JPEG"):
        decode_image(path)
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_a_few_stray_bytes_before_the_end_mark_are_no_damage(tmp_path):
    raw = encode_jpeg(np.full((16, 16, 3), 90, np.uint8)).tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(raw[:-2] + bytes([1, 2, 3]) + raw[-2:])
    assert decode_image(path).shape == (16, 16, 3)
    path.write_bytes(raw[:-2] + bytes(range(1, 101)) + raw[-2:])
    with pytest.raises(UserError, match="extraneous bytes"):
        decode_image(path)

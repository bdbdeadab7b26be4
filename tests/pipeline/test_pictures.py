import cv2
import numpy as np
import pytest

from pipeline.pictures import (
    id_colors,
    labels_page,
    projection_page,
    segments_page,
    superpixel_page,
    write_page,
)

GRAY_IMAGE = np.full((90, 160, 3), 128, np.uint8)


def _has_color(page, rgb, tolerance=6):
    return (np.abs(page.astype(int) - rgb).max(axis=2) <= tolerance).any()


def test_colors_are_fixed_distinct_and_gray_for_none():
    colors = id_colors(200)
    assert colors.shape == (201, 3) and colors.dtype == np.uint8
    assert len(set(colors[0].tolist())) == 1
    assert len(np.unique(colors, axis=0)) > 195
    np.testing.assert_array_equal(id_colors(10), colors[:11])
    # neighbors differ clearly
    assert np.abs(np.diff(colors.astype(int), axis=0)).max(axis=1).min() > 60


def test_superpixels_are_tinted_by_id_and_none_is_left_alone():
    ids = np.zeros((90, 160), np.uint16)
    ids[:, :80] = 5
    page = superpixel_page([GRAY_IMAGE], [ids], ["CAM"])
    assert page.ndim == 3 and page.shape[2] == 3 and page.dtype == np.uint8
    assert _has_color(page, np.array([128, 128, 128]), 1)
    assert _has_color(page, 0.65 * 128 + 0.35 * id_colors(5)[5])
    assert _has_color(page, np.array([255, 255, 90]))  # the border between them


@pytest.mark.parametrize(("count", "across", "down"), [(2, 2, 1), (4, 2, 2), (6, 3, 2)])
def test_grid_has_room_for_every_camera(count, across, down):
    ids = np.ones((90, 160), np.uint16)
    page = superpixel_page([GRAY_IMAGE] * count, [ids] * count, [f"CAM{k}" for k in range(count)])
    assert page.shape[1] == across * 640
    assert page.shape[0] == pytest.approx(down * (360 + 30), abs=2)


def test_projected_points_take_the_color_of_their_depth():
    uv = np.array([[40, 40], [120, 40], [-1, -1]], np.int16).repeat(3, axis=0)
    depth = np.array([2.0, 80.0, 10.0], np.float32).repeat(3)
    page = projection_page([GRAY_IMAGE], [uv], [depth], ["CAM"])
    picture = page[:, : int(page.shape[1] * 0.85)].astype(int)  # without the color bar
    is_red = (picture[:, :, 0] - picture[:, :, 2]) > 60
    assert is_red.any() and np.flatnonzero(is_red.any(axis=0)).mean() < picture.shape[1] / 2
    nothing = projection_page([GRAY_IMAGE], [uv * 0 - 1], [depth], ["CAM"])
    picture = nothing[:, : int(nothing.shape[1] * 0.85)].astype(int)
    assert not ((picture[:, :, 0] - picture[:, :, 2]) > 60).any()


def test_segments_have_one_color_in_both_frames():
    rng = np.random.default_rng(0)
    points = rng.uniform(-20, 20, (4000, 4)).astype(np.float32)
    ids = np.where(points[:, 0] > 0, 7, 0).astype(np.uint16)
    page = segments_page(points, ids, points, ids)
    half = page.shape[1] // 2
    for panel in (page[:, :half], page[:, half:]):
        assert _has_color(panel, id_colors(7)[7], 25)
    none = np.zeros_like(ids)
    assert not _has_color(segments_page(points, none, points, none), id_colors(7)[7], 25)


def test_empty_frames_make_a_page():
    empty, none = np.empty((0, 4), np.float32), np.empty(0, np.uint16)
    points = np.ones((5, 4), np.float32)
    assert segments_page(points, np.ones(5, np.uint16), empty, none).size
    assert segments_page(empty, none, empty, none).size


def test_no_images_are_refused():
    with pytest.raises(
        ValueError, match="images must be 1 or more with one name each, got 0 and 1"
    ):
        superpixel_page([], [], ["CAM"])


def test_written_page_comes_back(tmp_path):
    page = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    write_page(tmp_path / "new" / "page.png", page)
    back = cv2.cvtColor(cv2.imread(str(tmp_path / "new" / "page.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(back, page)


def test_nothing_of_a_page_of_labels_is_cut_off():
    """The label of the y axis was: its panel is square, the page and its legend are not."""
    points = np.random.default_rng(0).uniform(-40, 40, (200, 2))
    ids = (np.arange(200) % 3).astype(np.uint8)
    page = labels_page(
        points, ids, ["road", "car", "construction_vehicle"], np.eye(3) * 200, "00/0"
    )
    for edge in (page[:2], page[-2:], page[:, :2], page[:, -2:]):
        assert (edge == 255).all()

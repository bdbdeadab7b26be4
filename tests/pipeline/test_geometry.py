import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import geometry
from pipeline.geometry import Transform

quaternions = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(
    lambda q: np.linalg.norm(q) > 0.1
)


def test_quarter_turn_about_z_moves_x_to_y():
    half = np.sqrt(0.5)
    rotation = geometry.rotation_from_quaternion(np.array([half, 0, 0, half]))
    np.testing.assert_allclose(rotation @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(rotation @ [0, 1, 0], [-1, 0, 0], atol=1e-15)


@given(quaternions)
def test_rotations_are_rotations(quaternion):
    rotation = geometry.rotation_from_quaternion(np.array(quaternion))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_quaternion_without_length_is_refused():
    with pytest.raises(ValueError, match="must have a length"):
        geometry.rotation_from_quaternion(np.zeros(4))


def test_transforms_compose_only_where_frames_meet():
    T_ego_lidar = Transform("ego", "lidar", geometry.rigid(np.eye(3), [0, 0, 1.8]))
    T_world_ego = Transform("world", "ego", geometry.rigid(np.diag([-1.0, -1, 1]), [10, 0, 0]))
    T_world_lidar = T_world_ego @ T_ego_lidar
    assert (T_world_lidar.dst, T_world_lidar.src) == ("world", "lidar")
    moved = geometry.move(T_world_lidar.matrix, np.array([[1.0, 2, 0]]))
    np.testing.assert_allclose(moved, [[9, -2, 1.8]])
    with pytest.raises(ValueError, match="inner frames must meet, got 'lidar' and 'world'"):
        T_ego_lidar @ T_world_ego
    with pytest.raises(ValueError, match=r"must be \[4, 4\]"):
        Transform("a", "b", np.eye(3))


@given(quaternions, st.lists(st.floats(-100, 100), min_size=3, max_size=3))
def test_inverse_undoes(quaternion, translation):
    matrix = geometry.rigid(geometry.rotation_from_quaternion(np.array(quaternion)), translation)
    transform = Transform("a", "b", matrix)
    np.testing.assert_allclose((transform @ transform.inverse()).matrix, np.eye(4), atol=1e-9)
    assert transform.inverse().dst == "b"


def test_store_pixels_by_hand():
    assert geometry.store_size(900, 1600, 0.5) == (450, 800)
    assert geometry.store_size(375, 1241, 1.0) == (375, 1241)
    assert geometry.store_size(375, 1241, 0.5) == (188, 620)  # rint: 187.5 -> 188, 620.5 -> 620
    pixels = np.array([0, 1, 2, 3, 1598, 1599])
    assert geometry.store_pixels(pixels, 1600, 800).tolist() == [0, 0, 1, 1, 799, 799]
    assert geometry.store_pixels(np.array([0, 1, 2]), 3, 2).tolist() == [0, 1, 1]


@given(st.integers(1, 2000), st.floats(0.2, 1.0))
def test_store_pixels_stay_inside_and_in_order(length, scale):
    stored = geometry.store_size(length, length, scale)[0]
    if stored == 0:
        return
    pixels = geometry.store_pixels(np.arange(length), length, stored)
    assert pixels.min() >= 0
    assert pixels.max() <= stored - 1
    assert (np.diff(pixels) >= 0).all()

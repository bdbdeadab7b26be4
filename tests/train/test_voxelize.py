"""Voxels worked by hand, and what must hold for every cloud."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.voxelize import VoxelConfig, cells_of, voxelize

CARTESIAN = VoxelConfig(kind="cartesian", size_m=0.5)


def test_cylindrical_cells_by_hand():
    points = np.array(
        [
            [3.0, 4.0, 1.05],  # rho 5, phi 53.13
            [0.0, -1.25, -0.05],  # rho 1.25, phi -90
            [-2.03, 1e-9, 0.0],  # rho 2.03, phi just below 180
            [-2.03, 0.0, 0.0],  # phi exactly 180: its own cell, no wrap-around
            [-2.03, -1e-3, 0.0],  # phi just above -180
        ]
    )
    expected = [[50, 53, 10], [12, -90, -1], [20, 179, 0], [20, 180, 0], [20, -180, 0]]
    assert cells_of(points, VoxelConfig()).tolist() == expected
    assert cells_of(points[:1], VoxelConfig(angle_deg=10.0, size_m=1.0)).tolist() == [[5, 5, 1]]


def test_cartesian_voxels_by_hand():
    points = np.array(
        [
            [0.6, 0.1, 0.0, 7],  # cell (1, 0, 0)
            [-0.1, 0.1, 0.0, 8],  # cell (-1, 0, 0)
            [0.9, 0.4, 0.4, 9],  # cell (1, 0, 0) again
            [-0.4, 0.2, 0.1, 5],  # cell (-1, 0, 0) again
            [0.0, 0.0, -0.1, 6],  # cell (0, 0, -1)
        ],
        dtype=np.float32,
    )
    voxels = voxelize(points, CARTESIAN)
    assert voxels.cells.tolist() == [[-1, 0, 0], [0, 0, -1], [1, 0, 0]]
    assert voxels.cells.dtype == np.int32
    assert voxels.point_idx.tolist() == [1, 4, 0]  # the first point of each in file order
    assert voxels.voxel_idx.tolist() == [2, 0, 2, 0, 1]


coordinate = st.floats(-200, 200, width=32)


@given(
    rows=st.lists(st.tuples(coordinate, coordinate, coordinate), max_size=60),
    kind=st.sampled_from(["cylindrical", "cartesian"]),
    size_m=st.sampled_from([0.1, 5.0, 60.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_every_point_shares_a_cell_with_its_representative(rows, kind, size_m, seed):
    config = VoxelConfig(kind, size_m, angle_deg=30.0)
    points = np.array(rows, dtype=np.float32).reshape(-1, 3)
    voxels = voxelize(points, config)
    cells = cells_of(points, config)
    assert np.array_equal(cells[voxels.point_idx][voxels.voxel_idx], cells)
    assert np.array_equal(voxels.cells, cells[voxels.point_idx])
    assert sorted(map(tuple, voxels.cells.tolist())) == list(map(tuple, voxels.cells.tolist()))
    assert len(set(map(tuple, cells.tolist()))) == len(voxels.cells)
    # a representative is the first point of its voxel
    assert all(
        np.flatnonzero(voxels.voxel_idx == v)[0] == i for v, i in enumerate(voxels.point_idx)
    )
    # the voxels of a shuffled cloud are the same; each point keeps its voxel
    order = np.random.default_rng(seed).permutation(len(points))
    shuffled = voxelize(points[order], config)
    assert np.array_equal(shuffled.cells, voxels.cells)
    assert np.array_equal(shuffled.voxel_idx, voxels.voxel_idx[order])


def test_bad_points_and_settings_are_refused():
    points = np.zeros((3, 4), np.float32)
    points[1, 2] = np.nan
    with pytest.raises(ValueError, match="got 1 that are not \\(the first is point 1"):
        voxelize(points, VoxelConfig())
    with pytest.raises(ValueError, match="must be \\[N, 3 or more\\], got \\[3\\]"):
        voxelize(np.zeros(3), VoxelConfig())
    with pytest.raises(ValueError, match="within 2\\^31 cells"):
        voxelize(np.full((1, 3), 1e10), CARTESIAN)
    with pytest.raises(ValueError, match="too many to number"):
        voxelize(np.array([[-1e9] * 3, [1e9] * 3]), CARTESIAN)
    with pytest.raises(ValueError, match="must be one of cylindrical, cartesian, got 'polar'"):
        VoxelConfig(kind="polar")
    with pytest.raises(ValueError, match="size_m: must be positive, got 0"):
        VoxelConfig(size_m=0)

"""The world frozen at one moment, as the arrays that the ray casting kernels read."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

TOP_CELL_M = 4.0


class World(NamedTuple):
    """Everything the kernels read. Standing things come first, then the movers."""

    floats: np.ndarray  # [P, 28] float64, see primitives.py
    ints: np.ndarray  # [P, 5] int64
    grid_offsets: np.ndarray  # [rows * columns + 1] int64 into grid_items
    grid_items: np.ndarray  # [..] int64, standing things that touch the cell
    grid_shape: np.ndarray  # [2] int64, rows, columns
    grid_frame: np.ndarray  # [4] float64: x, y of the corner, cell, highest static z, m
    spheres: np.ndarray  # [T, 4] float64 around each thing: centre and radius in the world, m
    ranges: np.ndarray  # [T, 2] int64: rows of its primitives
    num_still: int  # things before this one stand still and are in the grid
    height_map: np.ndarray  # [rows, columns] float64, m
    height_tops: np.ndarray  # [rows, columns] float64: highest ground in cells of 4 m
    height_frame: np.ndarray  # [5] float64: x, y of the corner, cell, largest slope, highest z
    street_map: np.ndarray  # [rows, columns, 2] float64: s, d of the street at the node, m
    street_frame: np.ndarray  # [3] float64: x, y of the corner, cell
    block_edges: np.ndarray  # [B + 1] float64, s in m
    block_marks: np.ndarray  # [B] int64: PLAIN, CROSSWALK or CROSSING
    strips: np.ndarray  # [B, 2, K, 12] float64, see ground.py: right side, then left
    street: np.ndarray  # [16] float64, see ground.py
    light: np.ndarray  # [24] float64, see shade.py


@intrinsic
def _borrow(typing_context, array):
    """Return the same array without its reference count, valid while the caller keeps it."""

    def build(context, builder, signature, arguments):
        view = make_array(array)(context, builder, value=arguments[0])
        view.meminfo = view.meminfo.type(None)
        return view._getvalue()

    return array(array), build


@njit(cache=True)
def borrow(world: World) -> World:
    """Return the world without reference counts: every call below would count 17 arrays up, down.

    That is more than half of a ray's time on one thread, and threads fight over the counters.
    """
    return World(
        _borrow(world.floats),
        _borrow(world.ints),
        _borrow(world.grid_offsets),
        _borrow(world.grid_items),
        _borrow(world.grid_shape),
        _borrow(world.grid_frame),
        _borrow(world.spheres),
        _borrow(world.ranges),
        world.num_still,
        _borrow(world.height_map),
        _borrow(world.height_tops),
        _borrow(world.height_frame),
        _borrow(world.street_map),
        _borrow(world.street_frame),
        _borrow(world.block_edges),
        _borrow(world.block_marks),
        _borrow(world.strips),
        _borrow(world.street),
        _borrow(world.light),
    )


@njit(cache=True)
def height_at(height_map: np.ndarray, frame: np.ndarray, x: float, y: float) -> float:
    """Return the ground height at a place by bilinear interpolation, clamped at the border."""
    a = min(max((x - frame[0]) / frame[2], 0.0), height_map.shape[1] - 1.001)
    b = min(max((y - frame[1]) / frame[2], 0.0), height_map.shape[0] - 1.001)
    i, j = int(a), int(b)
    a, b = a - i, b - j
    low = height_map[j, i] * (1.0 - a) + height_map[j, i + 1] * a
    high = height_map[j + 1, i] * (1.0 - a) + height_map[j + 1, i + 1] * a
    return low * (1.0 - b) + high * b

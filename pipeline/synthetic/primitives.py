"""Convex primitives in unit space and the interval in which a ray is inside one.

A primitive is a centre, a matrix world -> unit space (rotation, then division by the half sizes)
and two tapers, so that three shapes are enough for a street: BOX (tapered: cabins, gable roofs,
jersey barriers), ELLIPSOID, and CYLINDER along its z (tapered: cones; hollow caps: wheels).
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

BOX, ELLIPSOID, CYLINDER = 0, 1, 2
FAR = 1e18

# Columns of the float table [P, 28] and of the integer table [P, 5].
CENTER, MATRIX, HALF, COLOR_A, COLOR_B = 0, 3, 12, 15, 18
PARAM_0, PARAM_1, REFLECTANCE, TAPER_X, TAPER_Y, HOLE, RADIUS = 21, 22, 23, 24, 25, 26, 27
NUM_FLOATS = 28
SHAPE, TEXTURE, SEGMENT, IS_LEAFY, SEED = 0, 1, 2, 3, 4
NUM_INTS = 5


class Interval(NamedTuple):
    """Ray parameters of entry and exit, and the normal in unit space at the entry."""

    enter: float
    leave: float
    nx: float
    ny: float
    nz: float


MISS = Interval(FAR, -FAR, 0.0, 0.0, 0.0)


@njit(cache=True)
def _cross_box(ox, oy, oz, dx, dy, dz, kx, ky):
    """Return the interval inside |x| <= 1 - kx (z + 1) / 2, |y| likewise, |z| <= 1."""
    enter, leave = -FAR, FAR
    ex, ey, ez = 0.0, 0.0, 0.0
    for axis in range(3):
        if axis == 0:
            o, d, k = oz, dz, 0.0
        elif axis == 1:
            o, d, k = ox, dx, kx
        else:
            o, d, k = oy, dy, ky
        for sign in (1.0, -1.0):
            along = sign * d + 0.5 * k * dz
            outside = sign * o + 0.5 * k * oz - 1.0 + 0.5 * k
            if along == 0.0:
                if outside > 0.0:
                    return MISS
                continue
            t = -outside / along
            if along > 0.0:
                leave = min(leave, t)
            elif t > enter:
                enter = t
                ex = sign if axis == 1 else 0.0
                ey = sign if axis == 2 else 0.0
                ez = sign if axis == 0 else 0.5 * k
        if enter > leave:
            return MISS
    return Interval(enter, leave, ex, ey, ez)


@njit(cache=True)
def _cross_ellipsoid(ox, oy, oz, dx, dy, dz):
    """Return the interval inside the unit sphere."""
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - 1.0
    under_root = b * b - a * c
    if under_root <= 0.0:
        return MISS
    root = math.sqrt(under_root)
    t = (-b - root) / a
    return Interval(t, (-b + root) / a, ox + t * dx, oy + t * dy, oz + t * dz)


@njit(cache=True)
def _cross_cylinder(ox, oy, oz, dx, dy, dz, taper, hole):
    """Return the interval inside x^2 + y^2 <= (1 - taper (z + 1) / 2)^2, |z| <= 1."""
    enter, leave, cap = -FAR, FAR, 0.0
    if dz != 0.0:
        cap = -1.0 if dz > 0.0 else 1.0
        enter, leave = (cap - oz) / dz, (-cap - oz) / dz
    elif abs(oz) > 1.0:
        return MISS
    r, dr = 1.0 - 0.5 * taper * (oz + 1.0), -0.5 * taper * dz
    a = dx * dx + dy * dy - dr * dr
    b = ox * dx + oy * dy - r * dr
    c = ox * ox + oy * oy - r * r
    under_root = b * b - a * c
    if abs(a) < 1e-12:  # along the axis, or along the cone's side
        x, y = ox + enter * dx, oy + enter * dy
        if c > 0.0 or x * x + y * y < hole * hole:
            return MISS
        return Interval(enter, leave, 0.0, 0.0, cap)
    if under_root <= 0.0:
        return MISS
    root = math.sqrt(under_root)
    first, second = (-b - root) / a, (-b + root) / a
    side = False
    if a > 0.0:
        if first > enter:
            enter, side = first, True
        leave = min(leave, second)
    else:  # steeper than the cone: inside before the smaller root and after the larger one
        small, large = second, first
        if enter > small:
            if large > enter:
                enter, side = large, True
        else:
            leave = min(leave, small)
    if enter > leave:
        return MISS
    x, y = ox + enter * dx, oy + enter * dy
    if not side:
        if x * x + y * y < hole * hole:
            return MISS
        return Interval(enter, leave, 0.0, 0.0, cap)
    z = oz + enter * dz
    return Interval(enter, leave, x, y, 0.5 * taper * (1.0 - 0.5 * taper * (z + 1.0)))


@njit(cache=True)
def cross(
    floats: np.ndarray,
    ints: np.ndarray,
    p: int,
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
) -> Interval:
    """Return where the world ray o + t d is inside primitive `p`; enter > leave = a miss.

    Args:
        floats: [P, 28] float64, the columns named above.
        ints: [P, 5] int64.
        p: row of both.
        ox: origin in the world, m.
        oy: likewise.
        oz: likewise.
        dx: unit direction in the world.
        dy: likewise.
        dz: likewise.
    """
    cx, cy, cz = ox - floats[p, 0], oy - floats[p, 1], oz - floats[p, 2]
    # Bounding sphere first: it rejects most candidates for a sixth of the cost (unit direction).
    b = cx * dx + cy * dy + cz * dz
    if cx * cx + cy * cy + cz * cz - floats[p, RADIUS] * floats[p, RADIUS] > b * b:
        return MISS
    ux = floats[p, 3] * cx + floats[p, 4] * cy + floats[p, 5] * cz
    uy = floats[p, 6] * cx + floats[p, 7] * cy + floats[p, 8] * cz
    uz = floats[p, 9] * cx + floats[p, 10] * cy + floats[p, 11] * cz
    vx = floats[p, 3] * dx + floats[p, 4] * dy + floats[p, 5] * dz
    vy = floats[p, 6] * dx + floats[p, 7] * dy + floats[p, 8] * dz
    vz = floats[p, 9] * dx + floats[p, 10] * dy + floats[p, 11] * dz
    taper_x, taper_y = floats[p, TAPER_X], floats[p, TAPER_Y]
    shape = ints[p, SHAPE]
    if shape == BOX:
        return _cross_box(ux, uy, uz, vx, vy, vz, taper_x, taper_y)
    if shape == ELLIPSOID:
        return _cross_ellipsoid(ux, uy, uz, vx, vy, vz)
    return _cross_cylinder(ux, uy, uz, vx, vy, vz, taper_x, floats[p, HOLE])

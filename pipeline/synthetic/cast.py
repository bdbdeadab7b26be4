"""Ray casting: the first surface along a ray, and whether the sun reaches a place.

In: a World of arrays (static primitives in a uniform grid, movers behind bounding spheres, a height
map). Out: distance, primitive and normal. All float64 and without fastmath, so that every thread
count gives the same bytes.
"""

import math
from typing import NamedTuple

from numba import njit

from pipeline.synthetic.frozen import TOP_CELL_M, World, height_at
from pipeline.synthetic.noise import hash3, noise3
from pipeline.synthetic.primitives import FAR, HALF, IS_LEAFY, SEED, cross

GROUND, NOTHING = -1, -2


class Hit(NamedTuple):
    """First surface along a ray: distance, primitive (or GROUND, NOTHING), outward unit normal."""

    t: float
    prim: int
    nx: float
    ny: float
    nz: float


@njit(cache=True)
def _reach_ground(world, ox, oy, oz, dx, dy, dz, t_max):
    """Return the ray parameter at the ground, FAR if beyond t_max (steps bounded by the slope)."""
    frame = world.height_frame
    t = 0.0
    if oz > frame[4]:
        if dz >= 0.0:
            return FAR
        t = (frame[4] - oz) / dz
    closing = frame[3] * math.sqrt(dx * dx + dy * dy) - dz
    if closing <= 0.0:
        return FAR
    tops, heights = world.height_tops, world.height_map
    for _ in range(300):
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        if t > t_max or (dz > 0.0 and z > frame[4]):
            return FAR
        a, b = (x - frame[0]) / TOP_CELL_M, (y - frame[1]) / TOP_CELL_M
        i, j = int(math.floor(a)), int(math.floor(b))
        if 0 <= i < tops.shape[1] and 0 <= j < tops.shape[0] and z > tops[j, i] + 0.02:
            # Nothing of this cell is met before the ray leaves it or sinks to its highest ground.
            step = (tops[j, i] + 0.01 - z) / dz if dz < 0.0 else FAR
            if dx != 0.0:
                step = min(step, ((i + (dx > 0.0)) - a) * TOP_CELL_M / dx)
            if dy != 0.0:
                step = min(step, ((j + (dy > 0.0)) - b) * TOP_CELL_M / dy)
            t += step + 1e-4
            continue
        above = z - height_at(heights, frame, x, y)
        if above < 0.002 + 0.0001 * t:
            return t
        t += max(above / closing, 0.002)
    return t


@njit(cache=True)
def _enter_leaves(seed, half_m, enter, leave, ox, oy, oz, dx, dy, dz):
    """Return the first leaf inside a crown: a march through a noise volume; FAR if none."""
    t = max(enter, 1e-3)
    for _ in range(7):
        if t > leave:
            return FAR
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        depth = min(t - enter, leave - t) / half_m
        density = 0.65 * noise3(2.1 * x, 2.1 * y, 2.1 * z, seed)
        density += 0.35 * hash3(
            int(math.floor(x * 6.0)), int(math.floor(y * 6.0)), int(math.floor(z * 6.0)), seed
        )
        if density > 0.5 - 0.35 * min(depth, 0.6):
            return t
        t += 0.22
    return FAR


@njit(cache=True)
def _misses(cx, cy, cz, radius, dx, dy, dz, t_max):
    """Return whether a ray of unit direction misses a sphere centred at c from its origin."""
    along = cx * dx + cy * dy + cz * dz
    if along < -radius or along - radius > t_max:
        return True
    return cx * cx + cy * cy + cz * cz - along * along > radius * radius


@njit(cache=True)
def _meet(floats, ints, first, last, ox, oy, oz, dx, dy, dz, best):
    """Return the nearer of `best` and the hit with rows first .. last (normal in unit space)."""
    for p in range(first, last):
        interval = cross(floats, ints, p, ox, oy, oz, dx, dy, dz)
        if interval.enter > interval.leave or interval.enter >= best.t or interval.leave < 1e-3:
            continue
        t = interval.enter
        if ints[p, IS_LEAFY] != 0:
            t = _enter_leaves(
                ints[p, SEED], floats[p, HALF], t, interval.leave, ox, oy, oz, dx, dy, dz
            )
        if 1e-3 <= t < best.t:
            best = Hit(t, p, interval.nx, interval.ny, interval.nz)
    return best


@njit(cache=True)
def _through_grid(world, ox, oy, oz, dx, dy, dz, best, any_hit):
    """Walk the cells under the ray and return the nearest hit with a standing thing."""
    floats, ints, spheres, ranges = world.floats, world.ints, world.spheres, world.ranges
    offsets, items = world.grid_offsets, world.grid_items
    rows, columns = world.grid_shape[0], world.grid_shape[1]
    x0, y0, cell = world.grid_frame[0], world.grid_frame[1], world.grid_frame[2]
    t, t_end = 0.0, best.t
    if dz > 0.0:
        t_end = min(t_end, (world.grid_frame[3] - oz) / dz)
    for axis in range(2):  # clip to the grid's rectangle
        o, d = (ox - x0, dx) if axis == 0 else (oy - y0, dy)
        size = cell * (columns if axis == 0 else rows)
        if d == 0.0:
            if o < 0.0 or o > size:
                return best
            continue
        a, b = -o / d, (size - o) / d
        t, t_end = max(t, min(a, b)), min(t_end, max(a, b))
    if t >= t_end:
        return best
    i = min(max(int((ox + (t + 1e-9) * dx - x0) / cell), 0), columns - 1)
    j = min(max(int((oy + (t + 1e-9) * dy - y0) / cell), 0), rows - 1)
    step_i, step_j = (1 if dx > 0.0 else -1), (1 if dy > 0.0 else -1)
    next_x = (x0 + cell * (i + (dx > 0.0)) - ox) / dx if dx != 0.0 else FAR
    next_y = (y0 + cell * (j + (dy > 0.0)) - oy) / dy if dy != 0.0 else FAR
    delta_x = cell / abs(dx) if dx != 0.0 else FAR
    delta_y = cell / abs(dy) if dy != 0.0 else FAR
    while True:
        here = j * columns + i
        for k in range(offsets[here], offsets[here + 1]):
            thing = items[k]
            cx, cy, cz = spheres[thing, 0] - ox, spheres[thing, 1] - oy, spheres[thing, 2] - oz
            if _misses(cx, cy, cz, spheres[thing, 3], dx, dy, dz, best.t):
                continue
            first, last = ranges[thing, 0], ranges[thing, 1]
            best = _meet(floats, ints, first, last, ox, oy, oz, dx, dy, dz, best)
            if any_hit and best.prim >= 0:
                return best
        if min(next_x, next_y) > min(t_end, best.t):
            return best
        if next_x < next_y:
            next_x += delta_x
            i += step_i
        else:
            next_y += delta_y
            j += step_j
        if i < 0 or j < 0 or i >= columns or j >= rows:
            return best


@njit(cache=True)
def _through_movers(world, ox, oy, oz, dx, dy, dz, best):
    """Return the nearest hit with a mover."""
    floats, ints, spheres, ranges = world.floats, world.ints, world.spheres, world.ranges
    for thing in range(world.num_still, spheres.shape[0]):
        cx, cy, cz = spheres[thing, 0] - ox, spheres[thing, 1] - oy, spheres[thing, 2] - oz
        if _misses(cx, cy, cz, spheres[thing, 3], dx, dy, dz, best.t):
            continue
        first, last = ranges[thing, 0], ranges[thing, 1]
        best = _meet(floats, ints, first, last, ox, oy, oz, dx, dy, dz, best)
    return best


@njit(cache=True)
def trace(
    world: World,
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    t_max: float,
) -> Hit:
    """Return the first surface along a ray of unit direction, in the world frame.

    Args:
        world: the scene at one moment.
        ox: origin, m.
        oy: likewise.
        oz: likewise.
        dx: unit direction.
        dy: likewise.
        dz: likewise.
        t_max: farthest distance looked at, m.
    """
    t = _reach_ground(world, ox, oy, oz, dx, dy, dz, t_max)
    best = Hit(t, GROUND, 0.0, 0.0, 1.0) if t < FAR else Hit(t_max, NOTHING, 0.0, 0.0, 0.0)
    best = _through_movers(world, ox, oy, oz, dx, dy, dz, best)
    best = _through_grid(world, ox, oy, oz, dx, dy, dz, best, False)
    if best.prim == NOTHING:
        return best
    if best.prim == GROUND:
        x, y, e = ox + t * dx, oy + t * dy, 0.12
        heights, frame = world.height_map, world.height_frame
        nx = height_at(heights, frame, x - e, y) - height_at(heights, frame, x + e, y)
        ny = height_at(heights, frame, x, y - e) - height_at(heights, frame, x, y + e)
        length = math.sqrt(nx * nx + ny * ny + 4.0 * e * e)
        return Hit(best.t, GROUND, nx / length, ny / length, 2.0 * e / length)
    row = world.floats[best.prim]
    nx = row[3] * best.nx + row[6] * best.ny + row[9] * best.nz
    ny = row[4] * best.nx + row[7] * best.ny + row[10] * best.nz
    nz = row[5] * best.nx + row[8] * best.ny + row[11] * best.nz
    length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
    return Hit(best.t, best.prim, nx / length, ny / length, nz / length)


@njit(cache=True)
def sees_sun(world: World, x: float, y: float, z: float, sx: float, sy: float, sz: float) -> bool:
    """Return whether nothing stands between a place and the sun (sx, sy, sz), within 60 m."""
    clear = Hit(60.0, NOTHING, 0.0, 0.0, 0.0)
    if _through_movers(world, x, y, z, sx, sy, sz, clear).prim >= 0:
        return False
    return _through_grid(world, x, y, z, sx, sy, sz, clear, True).prim < 0

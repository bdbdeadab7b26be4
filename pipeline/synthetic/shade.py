"""Cameras and LiDAR as kernels: one ray per pixel or beam, sun, shadow, sky and haze.

The world light vector holds sun direction, sun and sky colors, haze and exposure (indices below).
Kernels write every pixel from its own ray only, so the number of threads never changes a byte.
"""

import math

import numpy as np
from numba import njit, prange

from pipeline.synthetic.cast import GROUND, NOTHING, sees_sun, trace
from pipeline.synthetic.frozen import World, borrow
from pipeline.synthetic.ground import Surface, ground_surface
from pipeline.synthetic.noise import hash3, noise2
from pipeline.synthetic.primitives import IS_LEAFY, SEED
from pipeline.synthetic.textures import object_surface

# Entries of World.light.
SUN, SUN_COLOR, SKY_LOW, SKY_HIGH = 0, 3, 6, 9
AMBIENT, HAZE_M, CLOUDS, CLOUD_SEED, EXPOSURE, NOISE = 12, 13, 14, 15, 16, 19
NUM_LIGHT = 24
SKY_SEGMENT = 0
CAMERA_RANGE_M = 160.0


@njit(cache=True)
def _sky(light, dx, dy, dz):
    """Return the sky's color in a direction."""
    up = max(dz, 0.0)
    share = 1.0 - math.exp(-4.0 * up)
    r = light[SKY_LOW] * (1.0 - share) + light[SKY_HIGH] * share
    g = light[SKY_LOW + 1] * (1.0 - share) + light[SKY_HIGH + 1] * share
    b = light[SKY_LOW + 2] * (1.0 - share) + light[SKY_HIGH + 2] * share
    if dz > 0.02:
        x, y, seed = 1.5 * dx / (dz + 0.12), 1.5 * dy / (dz + 0.12), int(light[CLOUD_SEED])
        cloud = 0.6 * noise2(x, y, seed) + 0.4 * noise2(2.7 * x, 2.7 * y, seed + 1)
        cloud = min(max((cloud - 1.0 + light[CLOUDS]) * 3.0, 0.0), 1.0) * min(6.0 * up, 1.0)
        r, g, b = r + (0.95 - r) * cloud, g + (0.95 - g) * cloud, b + (0.96 - b) * cloud
    glow = max(dx * light[SUN] + dy * light[SUN + 1] + dz * light[SUN + 2], 0.0) ** 60
    return r + 0.5 * glow, g + 0.45 * glow, b + 0.3 * glow


@njit(cache=True)
def _surface(world, hit, x, y, z, footprint):
    """Return the surface at a hit, ground or object."""
    if hit.prim != GROUND:
        return object_surface(world.floats, world.ints, hit.prim, x, y, z, footprint)
    return ground_surface(
        world.street_map,
        world.street_frame,
        world.block_edges,
        world.block_marks,
        world.strips,
        world.street,
        x,
        y,
        footprint,
    )


@njit(cache=True)
def _pixel(world, ox, oy, oz, dx, dy, dz, spread):
    """Return (color in r, g, b; no reflectance; segment) of one camera ray."""
    light = world.light
    hit = trace(world, ox, oy, oz, dx, dy, dz, CAMERA_RANGE_M)
    if hit.prim == NOTHING:
        r, g, b = _sky(light, dx, dy, dz)
        return Surface(r, g, b, 0.0, SKY_SEGMENT)
    x, y, z = ox + hit.t * dx, oy + hit.t * dy, oz + hit.t * dz
    surface = _surface(world, hit, x, y, z, spread * hit.t)
    nx, ny, nz = hit.nx, hit.ny, hit.nz
    if hit.prim >= 0 and world.ints[hit.prim, IS_LEAFY] != 0:
        seed = world.ints[hit.prim, SEED]
        i, j, k = int(math.floor(4.0 * x)), int(math.floor(4.0 * y)), int(math.floor(4.0 * z))
        nx += 1.2 * (hash3(i, j, k, seed + 1) - 0.5)
        ny += 1.2 * (hash3(i, j, k, seed + 2) - 0.5)
        nz += 1.2 * (hash3(i, j, k, seed + 3) - 0.5)
        length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
        nx, ny, nz = nx / length, ny / length, nz / length
    sx, sy, sz = light[SUN], light[SUN + 1], light[SUN + 2]
    lit = nx * sx + ny * sy + nz * sz
    if lit > 0.0:
        lift = 0.03 + 0.0005 * hit.t
        if not sees_sun(world, x + lift * hit.nx, y + lift * hit.ny, z + lift * hit.nz, sx, sy, sz):
            lit = 0.0
    lit = max(lit, 0.0)
    sky = light[AMBIENT] * (0.62 + 0.38 * nz)
    r = surface.r * (sky * light[SKY_HIGH] * 1.1 + sky * 0.35 + lit * light[SUN_COLOR])
    g = surface.g * (sky * light[SKY_HIGH + 1] * 1.1 + sky * 0.3 + lit * light[SUN_COLOR + 1])
    b = surface.b * (sky * light[SKY_HIGH + 2] * 1.1 + sky * 0.2 + lit * light[SUN_COLOR + 2])
    haze = 1.0 - math.exp(-hit.t / light[HAZE_M])
    r += (light[SKY_LOW] - r) * haze
    g += (light[SKY_LOW + 1] - g) * haze
    b += (light[SKY_LOW + 2] - b) * haze
    return Surface(r, g, b, 0.0, surface.segment)


@njit(cache=True)
def _develop(value, grain):
    """Return the 8-bit value of a light value: a soft shoulder, noise, rounding."""
    if value > 0.8:
        value = 1.0 - 0.2 * math.exp(-(value - 0.8) / 0.2)
    return np.uint8(min(max(value + grain, 0.0), 1.0) * 255.0 + 0.5)


@njit(cache=True)
def _render_row(counted, T_world_cam, K, row, noise_seed, image, segments):
    """Fill one row of the image [W, 3] and of the segments [W]."""
    world = borrow(counted)
    light = world.light
    ox, oy, oz = T_world_cam[0, 3], T_world_cam[1, 3], T_world_cam[2, 3]
    for column in range(segments.shape[0]):
        a, b = (column - K[0, 2]) / K[0, 0], (row - K[1, 2]) / K[1, 1]
        length = math.sqrt(a * a + b * b + 1.0)
        a, b, c = a / length, b / length, 1.0 / length
        dx = T_world_cam[0, 0] * a + T_world_cam[0, 1] * b + T_world_cam[0, 2] * c
        dy = T_world_cam[1, 0] * a + T_world_cam[1, 1] * b + T_world_cam[1, 2] * c
        dz = T_world_cam[2, 0] * a + T_world_cam[2, 1] * b + T_world_cam[2, 2] * c
        seen = _pixel(world, ox, oy, oz, dx, dy, dz, 1.0 / K[0, 0])
        segments[column] = seen.segment
        vignette = 1.0 - 0.12 * (1.0 - c)
        for channel in range(3):
            value = seen.r if channel == 0 else (seen.g if channel == 1 else seen.b)
            grain = hash3(row, column, channel, noise_seed)
            grain += hash3(row, column, channel + 3, noise_seed) - 1.0
            value *= light[EXPOSURE + channel] * vignette
            image[column, channel] = _develop(value, light[NOISE] * grain)


@njit(cache=True, parallel=True)
def render(
    world: World,
    T_world_cam: np.ndarray,
    K: np.ndarray,
    height: int,
    width: int,
    noise_seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a pinhole camera sees: image [H, W, 3] uint8 RGB and segments [H, W] int32.

    Args:
        world: the scene at the moment of exposure.
        T_world_cam: [4, 4] float64.
        K: [3, 3] float64, pixels; pixel centres at integers.
        height: pixels.
        width: pixels.
        noise_seed: seed of the sensor noise.

    Returns:
        The image, and per pixel the number of the piece of surface, 0 = sky.
    """
    image = np.empty((height, width, 3), np.uint8)
    segments = np.empty((height, width), np.int32)
    for row in prange(height):
        _render_row(world, T_world_cam, K, row, noise_seed, image[row], segments[row])
    return image, segments


@njit(cache=True, parallel=True)
def scan(
    world: World, origin: np.ndarray, directions: np.ndarray, max_range_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what LiDAR rays meet, without noise.

    Args:
        world: the scene at the sweep's time.
        origin: [3] float64, world, m.
        directions: [N, 3] float64 unit vectors in the world.
        max_range_m: farthest return.

    Returns:
        range [N] float64 in m (inf = none), strength [N] float64 (reflectance times the share of
        light that comes back, 0 .. 1), segment [N] int32.
    """
    count = directions.shape[0]
    ranges, strengths = np.full(count, np.inf), np.zeros(count)
    segments = np.zeros(count, np.int32)
    num_chunks = (count + 511) // 512
    for chunk in prange(num_chunks):
        first, last = 512 * chunk, min(512 * (chunk + 1), count)
        _scan_rays(world, origin, directions, max_range_m, first, last, ranges, strengths, segments)
    return ranges, strengths, segments


@njit(cache=True)
def _scan_rays(counted, origin, directions, max_range_m, first, last, ranges, strengths, segments):
    """Fill the results of rays first .. last."""
    world = borrow(counted)
    ox, oy, oz = origin[0], origin[1], origin[2]
    for n in range(first, last):
        dx, dy, dz = directions[n, 0], directions[n, 1], directions[n, 2]
        hit = trace(world, ox, oy, oz, dx, dy, dz, max_range_m)
        if hit.prim == NOTHING:
            continue
        x, y, z = ox + hit.t * dx, oy + hit.t * dy, oz + hit.t * dz
        surface = _surface(world, hit, x, y, z, 0.003 * hit.t)
        facing = abs(hit.nx * dx + hit.ny * dy + hit.nz * dz)
        ranges[n] = hit.t
        strengths[n] = surface.reflectance * (0.3 + 0.7 * facing)
        segments[n] = surface.segment

"""Color and reflectance of objects' surfaces, computed where a ray lands.

Each texture reads the place in the primitive's own unit space and its half sizes (so patterns have
metric scale and move with the object), two colors and two parameters. Fine detail fades with the
ray's footprint.
"""

import math

import numpy as np
from numba import njit

from pipeline.synthetic.ground import Surface
from pipeline.synthetic.noise import hash3, noise2
from pipeline.synthetic.primitives import (
    COLOR_A,
    COLOR_B,
    HALF,
    PARAM_0,
    PARAM_1,
    REFLECTANCE,
    SEGMENT,
    TEXTURE,
)
from pipeline.synthetic.primitives import SEED as SEED_COLUMN

PLAIN, FACADE, CAR_BODY, CABIN, WHEEL, BUS, CARGO, STRIPES, BANDS = 0, 1, 2, 3, 4, 5, 6, 7, 8
LEAF, BARK, CLOTH, SLATS, TILES, LAMP = 9, 10, 11, 12, 13, 14
BRICK, PLASTER, GLASS, PANEL = 0, 1, 2, 3  # PARAM_1 of a facade


@njit(cache=True)
def _wall(style, u, v, seed, fade):
    """Return (brightness, share of color B) of a wall without its windows."""
    if style == BRICK:
        row = int(math.floor(v / 0.22))
        a = u / 0.6 + 0.5 * (row % 2)
        joint = a - math.floor(a) < 0.08 or v / 0.22 - row < 0.16
        own = hash3(int(math.floor(a)), row, 0, seed)
        if joint:
            return 1.0 + 0.12 * fade, 0.55 * fade + 0.1
        return 1.0 + 0.34 * fade * (own - 0.5), 0.1
    if style == PANEL:
        a, b = u / 3.1, v / 1.6
        edge = min(a - math.floor(a), b - math.floor(b)) < 0.03
        return (0.72 if edge else 1.0 + 0.1 * (hash3(int(a), int(b), 0, seed) - 0.5)), 0.0
    stain = noise2(0.35 * u, 1.1 * v, seed) - 0.5
    return 1.0 + 0.16 * stain + 0.08 * fade * (noise2(7.0 * u, 7.0 * v, seed + 1) - 0.5), 0.0


@njit(cache=True)
def _facade(u, v, period, style, seed, fade):
    """Return (brightness, share of B, glass 0/1) of a house front with windows."""
    floor = 3.2
    level, bay = int(math.floor(v / floor)), int(math.floor(u / period))
    y, x = v / floor - level, u / period - bay
    is_shop = level == 0 and hash3(1, 2, 3, seed) > 0.55
    if style == GLASS:
        if x < 0.05 or y < 0.2:
            return 0.8, 0.0, 0.0
        return 0.85 + 0.35 * hash3(bay, level, 4, seed), 0.0, 1.0
    low, high, left, right = 0.28, 0.80, 0.28, 0.72
    if is_shop:
        low, high, left, right = 0.12, 0.68, 0.08, 0.92
        if 0.72 < y < 0.94:
            return 0.9, 1.0, 0.0  # signboard
    if low < y < high and left < x < right:
        frame = 0.05
        if y < low + frame or y > high - frame or x < left + frame or x > right - frame:
            return 1.15, 1.0, 0.0
        if not is_shop and abs(x - 0.5) < 0.02:
            return 1.15, 1.0, 0.0
        return 0.7 + 0.6 * hash3(bay, level, 5, seed), 0.0, 1.0
    if low - 0.05 < y < low and left - 0.03 < x < right + 0.03:
        return 0.8, 1.0, 0.0  # sill
    brightness, share = _wall(style, u, v, seed, fade)
    return brightness, share, 0.0


@njit(cache=True)
def _vehicle(kind, side, lx, ly, lz, u, v, hx):
    """Return (brightness, share of B, glass) of car bodies, cabins, buses and cargo boxes.

    `side` is the face: 0 front or back, 1 flank, 2 top. B is the trim color.
    """
    if kind == CAR_BODY:
        if side == 0 and abs(ly) > 0.55 and lz > 0.0:
            return 1.0, 2.0 if lx > 0.0 else 3.0, 0.0  # lamps
        if side == 0 and abs(ly) < 0.3 and -0.5 < lz < 0.0:
            return 1.2, 1.0, 0.0  # plate and grille
        if lz < -0.6:
            return 0.35, 0.0, 0.0
        door = side == 1 and (abs(u - 0.05) < 0.02 or abs(u + 0.85) < 0.02)
        return (0.55 if door else 1.0), 0.0, 0.0
    if kind == CABIN:
        if side == 2:
            return 1.05, 0.0, 0.0
        pillar = abs(ly) > 0.9 if side == 0 else (abs(lx) > 0.93 or abs(lx + 0.05) < 0.05)
        return (1.0, 0.0, 0.0) if pillar or lz > 0.8 else (0.8, 0.0, 1.0)
    if kind == BUS:
        if side == 2:
            return 1.0, 0.6, 0.0
        if side == 0 and -0.25 < lz < 0.6 and abs(ly) < 0.88 and lx > 0.0:
            return 0.8, 0.0, 1.0
        if side == 1 and -0.05 < lz < 0.62 and (u + 40.0) % 1.5 > 0.14:
            return 0.8, 0.0, 1.0
        if -0.42 < lz < -0.2:
            return 1.0, 1.0, 0.0
        if side == 0 and lz < -0.5 and abs(ly) > 0.6:
            return 1.0, 2.0 if lx > 0.0 else 3.0, 0.0
        return 1.0, 0.0, 0.0
    if side == 1 and abs(lz) < 0.45 and abs(lx + 0.1) < 0.5:  # cargo: lettering
        letter = (u + 40.0) % 0.9 < 0.55 and abs(lz) < 0.3
        return 1.0, 1.0 if letter else 0.15, 0.0
    ridge = (u if side != 0 else v) + 40.0
    return (0.86 if ridge % 0.5 < 0.07 else 1.0), 0.0, 0.0


@njit(cache=True)
def _small(kind, lx, ly, lz, u, v, p0, seed, fade):
    """Return (brightness, share of B) of everything else."""
    if kind == WHEEL:
        radius = math.sqrt(lx * lx + ly * ly)
        return 1.0, 1.0 if radius < 0.55 and abs(lz) > 0.9 else 0.0
    if kind == STRIPES:
        return 1.0, 1.0 if (u + v + 40.0) % (2.0 * p0) < p0 else 0.0
    if kind == BANDS:
        return 1.0, 1.0 if 0.1 < 0.5 * (lz + 1.0) * 3.0 % 1.0 < 0.45 else 0.0
    if kind == LEAF:
        leaf = hash3(
            int(math.floor(u * 8.0)), int(math.floor(v * 8.0)), int(math.floor(lx * 9.0)), seed
        )
        clump = noise2(1.6 * u + lx, 1.6 * v, seed)
        return 1.0 + fade * 0.75 * (leaf - 0.5) + 0.5 * (clump - 0.5), clump
    if kind == BARK:
        angle = math.atan2(ly, lx)
        return 0.75 + 0.5 * noise2(5.0 * angle, 1.5 * v, seed), 0.0
    if kind == CLOTH:
        stripe = p0 > 0.5 and (lz + 2.0) % 0.35 < 0.14
        return 0.9 + 0.2 * noise2(4.0 * u, 4.0 * v, seed), 1.0 if stripe else 0.0
    if kind == SLATS:
        return (0.55 if (u + 400.0) % 0.28 < 0.05 else 1.0), hash3(int(u / 0.28), 0, 0, seed) * 0.5
    if kind == TILES:
        row = int(math.floor(v / 0.4))
        a = u / 0.45 + 0.5 * (row % 2)
        dark = v / 0.4 - row < 0.2
        return (0.7 if dark else 1.0 + 0.2 * (hash3(int(a), row, 0, seed) - 0.5)), 0.0
    return 1.0 + 0.07 * fade * (noise2(9.0 * u, 9.0 * v, seed) - 0.5), 0.0


@njit(cache=True)
def object_surface(
    floats: np.ndarray,
    ints: np.ndarray,
    p: int,
    x: float,
    y: float,
    z: float,
    footprint_m: float,
) -> Surface:
    """Return color, reflectance and piece at a place on primitive `p`; glass is dark and dull.

    Args:
        floats: [P, 28] float64, see primitives.py.
        ints: [P, 5] int64.
        p: row of both.
        x: place in the world, m.
        y: likewise.
        z: likewise.
        footprint_m: width of the ray there.
    """
    row = floats[p]
    cx, cy, cz = x - row[0], y - row[1], z - row[2]
    lx = row[3] * cx + row[4] * cy + row[5] * cz
    ly = row[6] * cx + row[7] * cy + row[8] * cz
    lz = row[9] * cx + row[10] * cy + row[11] * cz
    hx, hy, hz = row[HALF], row[HALF + 1], row[HALF + 2]
    kind, seed = ints[p, TEXTURE], ints[p, SEED_COLUMN]
    fade = 1.0 / (1.0 + (footprint_m / 0.12) ** 2)
    side, u, v = 0, ly * hy, (lz + 1.0) * hz
    if abs(lz) > 0.999:
        side, u, v = 2, lx * hx, ly * hy
    elif abs(ly) > 0.999 or (abs(ly) > abs(lx) and kind != FACADE):
        side, u = 1, lx * hx
    glass, share = 0.0, 0.0
    if kind == FACADE and side != 2:
        style = int(row[PARAM_1])
        value, share, glass = _facade(u + 200.0, v - 1.0, row[PARAM_0], style, seed, fade)
    elif CAR_BODY <= kind <= CARGO and kind != WHEEL:
        value, share, glass = _vehicle(kind, side, lx, ly, lz, u, v, hx)
    else:
        value, share = _small(kind, lx, ly, lz, u, v, row[PARAM_0], seed, fade)
    segment, reflectance = int(ints[p, SEGMENT]), row[REFLECTANCE]
    if glass > 0.5:
        return Surface(0.16 * value, 0.20 * value, 0.25 * value, 0.02, segment)
    if share > 1.5:  # lamps
        if share < 2.5:
            return Surface(0.95, 0.93, 0.82, 0.5, segment)
        return Surface(0.70, 0.08, 0.06, 0.6, segment)
    if kind == LAMP:
        return Surface(row[COLOR_A], row[COLOR_A + 1], row[COLOR_A + 2], reflectance, segment)
    r = (row[COLOR_A] * (1.0 - share) + row[COLOR_B] * share) * value
    g = (row[COLOR_A + 1] * (1.0 - share) + row[COLOR_B + 1] * share) * value
    b = (row[COLOR_A + 2] * (1.0 - share) + row[COLOR_B + 2] * share) * value
    return Surface(r, g, b, reflectance * (0.7 + 0.3 * value + 0.3 * share), segment)

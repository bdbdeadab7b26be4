"""The ground: from a place to street coordinates, to the strip it lies on, to height and color.

Street coordinates are s along the center line and d to its left, in metres. Blocks are intervals
of s; in each, either side is a row of strips (median, road, verge, sidewalk, garden, ..) outwards.
Lane marks and paving are computed where a ray lands, so they stay sharp at any distance.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from pipeline.synthetic.noise import hash3, noise2

# Columns of a strip. EDGE is the outer |d|; the segment is the piece of surface it belongs to.
EDGE, CATEGORY, PATTERN, SEGMENT, COLOR_A, COLOR_B, REFLECTANCE, SLOPE = 0, 1, 2, 3, 4, 7, 10, 11
NUM_STRIP_COLUMNS = 12
ASPHALT, SLABS, GRASS, DIRT, PAVERS = 0, 1, 2, 3, 4
PLAIN, CROSSWALK, CROSSING = 0, 1, 2
ROAD, OTHER_FLAT, SIDEWALK, TERRAIN = 24, 25, 26, 27  # raw categories

# Entries of World.street.
MEDIAN, KERB, LANE_WIDTH, NUM_LANES, PARKING_LINE, YELLOW, SEED, CAMBER = 0, 1, 2, 3, 4, 5, 6, 7
NUM_STREET = 8


class Place(NamedTuple):
    """Street coordinates of a point on the ground and the strip it lies on."""

    s: float
    d: float
    block: int
    side: int
    strip: int


class Surface(NamedTuple):
    """What light meets: color 0 .. 1, LiDAR reflectance 0 .. 1, and the piece it belongs to."""

    r: float
    g: float
    b: float
    reflectance: float
    segment: int


@njit(cache=True)
def street_coordinates(
    street_map: np.ndarray, frame: np.ndarray, x: float, y: float
) -> tuple[float, float]:
    """Return (s, d) in metres of a place in the world, bilinear in the 1 m map."""
    a = min(max((x - frame[0]) / frame[2], 0.0), street_map.shape[1] - 1.001)
    b = min(max((y - frame[1]) / frame[2], 0.0), street_map.shape[0] - 1.001)
    i, j = int(a), int(b)
    a, b = a - i, b - j
    s = (street_map[j, i, 0] * (1.0 - a) + street_map[j, i + 1, 0] * a) * (1.0 - b)
    s += (street_map[j + 1, i, 0] * (1.0 - a) + street_map[j + 1, i + 1, 0] * a) * b
    d = (street_map[j, i, 1] * (1.0 - a) + street_map[j, i + 1, 1] * a) * (1.0 - b)
    d += (street_map[j + 1, i, 1] * (1.0 - a) + street_map[j + 1, i + 1, 1] * a) * b
    return s, d


@njit(cache=True)
def place_on(block_edges: np.ndarray, strips: np.ndarray, s: float, d: float) -> Place:
    """Return the block, side and strip that street coordinates fall on."""
    block = 0
    while block < strips.shape[0] - 1 and s >= block_edges[block + 1]:
        block += 1
    side = 1 if d > 0.0 else 0
    strip = 0
    while strip < strips.shape[2] - 1 and abs(d) >= strips[block, side, strip, EDGE]:
        strip += 1
    return Place(s, d, block, side, strip)


@njit(cache=True)
def _height(block_edges, strips, street, place):
    row = strips[place.block, place.side, place.strip]
    if row[CATEGORY] == ROAD:
        return -street[CAMBER] * min(abs(place.d), street[KERB])
    height = 0.13 if row[CATEGORY] != TERRAIN else 0.10
    # A slope starts where its strip starts and fades out towards both ends of the block.
    ends = min(place.s - block_edges[place.block], block_edges[place.block + 1] - place.s)
    fade = min(max(ends / 5.0, 0.0), 1.0)
    for k in range(place.strip + 1):
        slope = strips[place.block, place.side, k, SLOPE]
        if slope != 0.0 and k > 0:
            start = strips[place.block, place.side, k - 1, EDGE]
            height += fade * min(max(slope * (abs(place.d) - start), -0.7), 1.3)
    if row[CATEGORY] == TERRAIN:
        seed = int(street[SEED])
        height += 0.10 * (noise2(0.45 * place.s, 0.45 * place.d, seed) - 0.5)
    return height


@njit(cache=True)
def draw_height_map(
    street_map: np.ndarray,
    street_frame: np.ndarray,
    block_edges: np.ndarray,
    strips: np.ndarray,
    street: np.ndarray,
    shape: tuple[int, int],
    corner_m: tuple[float, float],
    cell_m: float,
) -> np.ndarray:
    """Return the ground height [rows, columns] float64 in m at the nodes of a map."""
    height = np.empty(shape)
    for j in range(shape[0]):
        for i in range(shape[1]):
            x, y = corner_m[0] + cell_m * i, corner_m[1] + cell_m * j
            s, d = street_coordinates(street_map, street_frame, x, y)
            place = place_on(block_edges, strips, s, d)
            height[j, i] = _height(block_edges, strips, street, place)
    return height


@njit(cache=True, parallel=True)
def draw_street_map(
    line: np.ndarray, shape: tuple[int, int], corner_m: tuple[float, float], cell_m: float
) -> np.ndarray:
    """Return s and d [rows, columns, 2] of the nodes of a map, by the nearest node of the line.

    Args:
        line: [L, 4] float64: x, y, heading in rad, s of the center line.
        shape: rows, columns.
        corner_m: x, y of node (0, 0).
        cell_m: spacing.
    """
    out = np.empty((shape[0], shape[1], 2))
    for j in prange(shape[0]):
        for i in range(shape[1]):
            x, y = corner_m[0] + cell_m * i, corner_m[1] + cell_m * j
            best, nearest = 1e18, 0
            for n in range(line.shape[0]):
                distance = (line[n, 0] - x) ** 2 + (line[n, 1] - y) ** 2
                if distance < best:
                    best, nearest = distance, n
            dx, dy = x - line[nearest, 0], y - line[nearest, 1]
            c, s = math.cos(line[nearest, 2]), math.sin(line[nearest, 2])
            out[j, i, 0] = line[nearest, 3] + c * dx + s * dy
            out[j, i, 1] = -s * dx + c * dy
    return out


@njit(cache=True)
def _mark(street, mark, s, d):
    """Return the opacity of the paint at a place on the road: 0 none, 1 white, 2 yellow."""
    side, width = abs(d), 0.09
    if mark == CROSSING:
        return 0.0
    if mark == CROSSWALK:
        return 1.0 if (d + 200.0) % 1.1 < 0.6 and side < street[KERB] - 0.5 else 0.0
    dashed = (s + 1000.0) % 7.0 < 3.5
    if street[MEDIAN] == 0.0 and (
        abs(side - 0.14) < 0.07 if street[YELLOW] > 1.5 else side < width
    ):
        solid = dashed or street[YELLOW] > 0.5
        return (2.0 if street[YELLOW] > 0.5 else 1.0) if solid else 0.0
    if abs(side - street[PARKING_LINE]) < width:
        return 1.0
    if dashed and street[NUM_LANES] > 1.5:
        if abs(side - street[MEDIAN] - street[LANE_WIDTH]) < width:
            return 1.0
    return 0.0


@njit(cache=True)
def _asphalt(street, mark, s, d, seed, fade):
    """Return brightness and paint of the road surface."""
    grain = hash3(int(math.floor(s * 14.0)), int(math.floor(d * 14.0)), 0, seed) - 0.5
    value = 1.0 + 0.22 * fade * grain + 0.22 * (noise2(0.25 * s, 0.6 * d, seed) - 0.5)
    lane = (abs(d) - street[MEDIAN]) % street[LANE_WIDTH] - 0.5 * street[LANE_WIDTH]
    value -= 0.07 * math.exp(-((abs(lane) - 0.8) ** 2) / 0.08)  # wheel tracks
    if abs(noise2(0.5 * s, 0.5 * d, seed + 5) - 0.5) < 0.012 * fade:
        value *= 0.72  # cracks
    paint = _mark(street, mark, s, d)
    if paint > 0.0 and noise2(3.0 * s, 3.0 * d, seed + 9) < 0.25:
        paint = 0.0  # worn off
    return value, paint


@njit(cache=True)
def _pattern(kind, s, d, seed, fade):
    """Return (brightness, share of color B) of a surface that is not a road."""
    if kind == SLABS or kind == PAVERS:
        length = 0.9 if kind == SLABS else 0.5
        width = 0.9 if kind == SLABS else 0.25
        row = int(math.floor(d / width))
        a = s / length + (0.5 * (row % 2) if kind == PAVERS else 0.0)
        u, v = a - math.floor(a), d / width - row
        joint = 0.06 if kind == SLABS else 0.09
        own = hash3(int(math.floor(a)), row, 1, seed)
        if u < joint or v < joint:
            return 1.0 - 0.4 * fade, 0.3
        if kind == SLABS:
            return 1.0 + 0.16 * fade * (own - 0.5), 0.2 * own
        return 1.0 + 0.12 * fade * (own - 0.5), 0.5 + fade * ((1.0 if own > 0.5 else 0.0) - 0.5)
    broad = noise2(0.35 * s, 0.35 * d, seed)
    fine = hash3(int(math.floor(s * 9.0)), int(math.floor(d * 22.0)), 2, seed) - 0.5
    if kind == GRASS:
        tuft = noise2(2.5 * s, 5.0 * d, seed + 3) - 0.5
        return 1.0 + fade * (0.5 * fine + 0.45 * tuft), broad
    stone = hash3(int(math.floor(s * 7.0)), int(math.floor(d * 7.0)), 3, seed)
    value = 1.0 + fade * (0.45 if stone > 0.9 else -0.05) + 0.2 * fade * fine
    return value, 0.7 * broad + 0.3 * noise2(1.7 * s, 1.7 * d, seed + 4)


@njit(cache=True)
def ground_surface(
    street_map: np.ndarray,
    street_frame: np.ndarray,
    block_edges: np.ndarray,
    block_marks: np.ndarray,
    strips: np.ndarray,
    street: np.ndarray,
    x: float,
    y: float,
    footprint_m: float,
) -> Surface:
    """Return color, reflectance and piece of the ground at a place.

    Args:
        street_map: arrays of World, here to the street vector.
        street_frame: see World.
        block_edges: see World.
        block_marks: see World.
        strips: see World.
        street: see World.
        x: place in the world, m.
        y: likewise.
        footprint_m: width of the ray there; detail finer than it fades to its mean.
    """
    s, d = street_coordinates(street_map, street_frame, x, y)
    place = place_on(block_edges, strips, s, d)
    row = strips[place.block, place.side, place.strip]
    seed, fade = int(street[SEED]), 1.0 / (1.0 + (footprint_m / 0.15) ** 2)
    segment = int(row[SEGMENT])
    if row[CATEGORY] == ROAD:
        value, paint = _asphalt(street, block_marks[place.block], s, d, seed, fade)
        if paint > 0.0:
            blue = 0.82 if paint < 1.5 else 0.25
            return Surface(0.86 * value, 0.82 * value, blue * value, 0.42, segment)
        r, g, b = row[COLOR_A], row[COLOR_A + 1], row[COLOR_A + 2]
        return Surface(r * value, g * value, b * value, row[REFLECTANCE] * value, segment)
    beyond_kerb = abs(d) - street[KERB]
    if 0.0 <= beyond_kerb < 0.2:  # kerb stones, part of what they border
        light = 0.62 if (s + 1000.0) % 1.0 > 0.03 else 0.4
        return Surface(light, light, 0.97 * light, 0.16, segment)
    value, share = _pattern(int(row[PATTERN]), s, d, seed, fade)
    r = row[COLOR_A] * (1.0 - share) + row[COLOR_B] * share
    g = row[COLOR_A + 1] * (1.0 - share) + row[COLOR_B + 1] * share
    b = row[COLOR_A + 2] * (1.0 - share) + row[COLOR_B + 2] * share
    return Surface(r * value, g * value, b * value, row[REFLECTANCE] * value, segment)

"""Hashed noise for textures: the same number for the same place, whatever thread or machine asks.

Integer lattice hashes and smooth value noise in two and three dimensions, all in 0 .. 1.
"""

import math

from numba import njit

_MASK = 0xFFFFFFFF


@njit(cache=True, inline="always")
def hash3(i: int, j: int, k: int, seed: int) -> float:
    """Return a number in [0, 1) that belongs to the lattice point (i, j, k) under `seed`."""
    h = (i * 374761393 + j * 668265263 + k * 1440662683 + seed * 974634787) & _MASK
    h = ((h ^ (h >> 13)) * 1274126177) & _MASK
    h = ((h ^ (h >> 16)) * 2246822519) & _MASK
    return (h ^ (h >> 15)) / 4294967296.0


@njit(cache=True)
def noise2(x: float, y: float, seed: int) -> float:
    """Return smooth value noise in [0, 1) with lattice spacing 1."""
    i, j = int(math.floor(x)), int(math.floor(y))
    a, b = x - i, y - j
    a, b = a * a * (3.0 - 2.0 * a), b * b * (3.0 - 2.0 * b)
    low = hash3(i, j, 0, seed) * (1.0 - a) + hash3(i + 1, j, 0, seed) * a
    high = hash3(i, j + 1, 0, seed) * (1.0 - a) + hash3(i + 1, j + 1, 0, seed) * a
    return low * (1.0 - b) + high * b


@njit(cache=True)
def noise3(x: float, y: float, z: float, seed: int) -> float:
    """Return value noise in [0, 1), smooth in x and y, linear between layers in z."""
    k = int(math.floor(z))
    c = z - k
    return noise2(x, y, seed + 31 * k) * (1.0 - c) + noise2(x, y, seed + 31 * (k + 1)) * c

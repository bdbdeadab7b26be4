"""From Things to the arrays of World: a grid over what stands still, spheres around what moves."""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.frozen import TOP_CELL_M, World, height_at
from pipeline.synthetic.parts import Thing, rotation_from_angles
from pipeline.synthetic.primitives import (
    CENTER,
    COLOR_A,
    COLOR_B,
    HALF,
    HOLE,
    MATRIX,
    NUM_FLOATS,
    NUM_INTS,
    PARAM_0,
    RADIUS,
    REFLECTANCE,
    TAPER_X,
    TAPER_Y,
)
from pipeline.synthetic.street import Street

GRID_CELL_M = 4.0


@dataclass(frozen=True)
class Scene:
    """One made-up drive's surroundings, at every time."""

    street: Street
    things: tuple[Thing, ...]  # annotated objects and the rest, standing ones first
    thing_pieces: tuple[tuple[int, ...], ...]  # per thing and part, the piece it belongs to
    still: World  # without movers
    mover_rows: tuple[tuple[np.ndarray, np.ndarray], ...]  # primitive rows of each, own frame


def _rows(thing: Thing, pieces: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the primitive rows of a thing in its own frame, [n, 28] and [n, 5]."""
    floats = np.zeros((len(thing.parts), NUM_FLOATS))
    ints = np.zeros((len(thing.parts), NUM_INTS), np.int64)
    for row, (part, piece) in enumerate(zip(thing.parts, pieces, strict=True)):
        half = np.array(part.half, np.float64)
        floats[row, CENTER : CENTER + 3] = part.center
        floats[row, MATRIX : MATRIX + 9] = (part.rotation().T / half[:, None]).ravel()
        floats[row, HALF : HALF + 3] = half
        floats[row, COLOR_A : COLOR_A + 3] = part.color
        floats[row, COLOR_B : COLOR_B + 3] = part.color_b
        floats[row, PARAM_0 : PARAM_0 + 2] = part.params
        floats[row, [REFLECTANCE, TAPER_X, TAPER_Y, HOLE]] = (
            part.reflectance,
            *part.taper,
            part.hole,
        )
        # Negative tapers widen the top, so the sphere must hold the wider end.
        floats[row, RADIUS] = np.linalg.norm(half) * (1.0 + max(0.0, -min(part.taper)))
        ints[row] = part.shape, part.texture, piece, part.is_leafy, part.seed
    return floats, ints


def _stand(floats: np.ndarray, position: tuple, yaw: float) -> np.ndarray:
    """Return primitive rows moved from a thing's frame to the world."""
    moved = floats.copy()
    R_world_thing = rotation_from_angles(yaw)
    moved[:, CENTER : CENTER + 3] = floats[:, CENTER : CENTER + 3] @ R_world_thing.T + position
    matrices = floats[:, MATRIX : MATRIX + 9].reshape(-1, 3, 3) @ R_world_thing.T
    moved[:, MATRIX : MATRIX + 9] = matrices.reshape(-1, 9)
    return moved


def place_at(street: Street, thing: Thing, time_s: float) -> tuple[tuple, float]:
    """Return position in m and yaw in rad of a thing at a time since the scene's start."""
    motion = thing.motion
    if motion is None:
        return thing.position, thing.yaw
    d = motion.d_m + motion.speed_d * time_s
    x, y, heading = street.pose_at(motion.s_m + motion.speed_s * time_s, d)
    z = height_at(street.height_map, street.height_frame, x, y)
    return (x, y, float(z)), heading + math.atan2(motion.speed_d, motion.speed_s)


def _sphere(floats: np.ndarray) -> list[float]:
    """Return centre and radius of a sphere around primitives."""
    centers = floats[:, CENTER : CENTER + 3]
    middle = (centers.min(0) + centers.max(0)) / 2
    radius = (np.linalg.norm(centers - middle, axis=1) + floats[:, RADIUS]).max()
    return [*middle, radius]


def _reach(floats: np.ndarray) -> np.ndarray:
    """Return how far each primitive reaches along the world's axes, [P, 3] m."""
    # A box's reach along a world axis is the sum of its half axes' shares of that axis.
    axes = floats[:, MATRIX : MATRIX + 9].reshape(-1, 3, 3) * floats[:, HALF : HALF + 3, None] ** 2
    wider = 1.0 + np.maximum(0.0, -floats[:, [TAPER_X, TAPER_Y]].min(axis=1))
    return np.abs(axes).sum(axis=1) * wider[:, None]


def build_grid(floats: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return offsets, items, shape and frame of a uniform grid over things' primitive rows."""
    centers = [rows[:, CENTER : CENTER + 3] for rows in floats]
    reaches = [_reach(rows) for rows in floats]
    low = np.array([(c - r).min(0) for c, r in zip(centers, reaches, strict=True)])
    high = np.array([(c + r).max(0) for c, r in zip(centers, reaches, strict=True)])
    corner = np.floor(low.min(0)[:2]) - 1.0
    extent = high.max(0)[:2] + 1.0 - corner
    columns, rows = (int(math.ceil(value / GRID_CELL_M)) for value in extent)
    first = ((low[:, :2] - corner) // GRID_CELL_M).astype(int)
    last = ((high[:, :2] - corner) // GRID_CELL_M).astype(int)
    cells: list[list[int]] = [[] for _ in range(rows * columns)]
    for thing in range(len(floats)):
        for j in range(first[thing, 1], last[thing, 1] + 1):
            for i in range(first[thing, 0], last[thing, 0] + 1):
                cells[j * columns + i].append(thing)
    offsets = np.concatenate([[0], np.cumsum([len(cell) for cell in cells])]).astype(np.int64)
    items = np.array([thing for cell in cells for thing in cell], np.int64)
    frame = np.array([corner[0], corner[1], GRID_CELL_M, float(high[:, 2].max())])
    return offsets, items, np.array([rows, columns], np.int64), frame


def _tops(height_map: np.ndarray, cell_m: float) -> np.ndarray:
    """Return the highest ground of each whole coarse cell, its border included."""
    per_cell = int(TOP_CELL_M / cell_m)
    rows, columns = ((count - 1) // per_cell for count in height_map.shape)
    tops = np.full((rows, columns), -np.inf)
    for j in range(per_cell + 1):
        for i in range(per_cell + 1):
            part = height_map[j::per_cell, i::per_cell][:rows, :columns]
            tops = np.maximum(tops, part)
    return tops


def assemble(street: Street, things: list[Thing], pieces: list, light: np.ndarray) -> Scene:
    """Return the scene of a street and its things.

    Args:
        street: see street.py.
        things: in any order.
        pieces: per thing, the piece number of each part.
        light: see shade.py.
    """
    order = [k for k, thing in enumerate(things) if thing.motion is None]
    order += [k for k, thing in enumerate(things) if thing.motion is not None]
    things, pieces = [things[k] for k in order], [tuple(pieces[k]) for k in order]
    still = [(t, p) for t, p in zip(things, pieces, strict=True) if t.motion is None]
    rows = [(_rows(t, p), t) for t, p in still]
    floats = [_stand(f, t.position, t.yaw) for (f, _), t in rows]
    ends = np.cumsum([len(f) for f in floats])
    world = World(
        np.concatenate(floats),
        np.concatenate([i for (_, i), _ in rows]),
        *build_grid(floats),
        np.array([_sphere(f) for f in floats]),
        np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1).astype(np.int64),
        len(floats),
        street.height_map,
        _tops(street.height_map, street.height_frame[2]),
        street.height_frame,
        street.street_map,
        street.street_frame,
        street.block_edges,
        street.block_marks,
        street.strips,
        street.vector,
        light,
    )
    movers = tuple(_rows(t, p) for t, p in zip(things, pieces, strict=True) if t.motion is not None)
    return Scene(street, tuple(things), tuple(pieces), world, movers)


def world_at(
    scene: Scene, time_s: float, ego: tuple[Thing, tuple, float] | None = None, ego_piece: int = 0
) -> World:
    """Return the world frozen at a time.

    Args:
        scene: the scene.
        time_s: seconds since the scene's start.
        ego: what of the own vehicle the sensor may see, with its position and yaw; cameras: None.
        ego_piece: its piece number.
    """
    moving = [thing for thing in scene.things if thing.motion is not None]
    rows = list(scene.mover_rows)
    places = [place_at(scene.street, thing, time_s) for thing in moving]
    if ego is not None:
        rows.append(_rows(ego[0], (ego_piece,) * len(ego[0].parts)))
        places.append((ego[1], ego[2]))
    floats, ints, spheres, ranges = [], [], [], []
    start = len(scene.still.floats)
    for (own, numbers), (position, yaw) in zip(rows, places, strict=True):
        floats.append(_stand(own, position, yaw))
        ints.append(numbers)
        spheres.append(_sphere(floats[-1]))
        ranges.append([start, start + len(own)])
        start += len(own)
    return scene.still._replace(
        floats=np.concatenate([scene.still.floats, *floats]),
        ints=np.concatenate([scene.still.ints, *ints]),
        spheres=np.concatenate([scene.still.spheres, np.array(spheres).reshape(-1, 4)]),
        ranges=np.concatenate([scene.still.ranges, np.array(ranges, np.int64).reshape(-1, 2)]),
    )


def annotation_box(thing: Thing) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle [3] of a thing's box in its own frame and its size [3] (w, l, h), m."""
    floats, _ = _rows(thing, (0,) * len(thing.parts))
    centers, reach = floats[:, CENTER : CENTER + 3], _reach(floats)
    low, high = (centers - reach).min(0), (centers + reach).max(0)
    low[2] = max(low[2], 0.0)
    return (low + high) / 2, (high - low)[[1, 0, 2]]

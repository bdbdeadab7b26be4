"""The street of a scene: a curved center line and, along it, blocks with a plan for either side.

Blocks between crossings carry houses, gardens, parks, plazas or building sites; a crossing is a
block whose road goes on sideways. Out: the arrays ground.py reads,
and the plans placement.py fills.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.synthetic.centerline import draw_line
from pipeline.synthetic.ground import (
    ASPHALT,
    CROSSING,
    CROSSWALK,
    DIRT,
    GRASS,
    NUM_STREET,
    NUM_STRIP_COLUMNS,
    OTHER_FLAT,
    PAVERS,
    PLAIN,
    ROAD,
    SIDEWALK,
    SLABS,
    TERRAIN,
    draw_height_map,
    draw_street_map,
)
from pipeline.synthetic.palette import Palette

MAX_STRIPS = 7
KINDS = ["town", "verge", "garden", "park", "plaza", "site"]
MAP_MARGIN_M = 75.0
HEIGHT_CELL_M = 0.25


@dataclass
class Pieces:
    """Every piece of surface of a scene by number: raw category and instance (0 = stuff)."""

    categories: list[int]
    instances: list[int]

    def add(self, category: int, instance: int = 0) -> int:
        """Return the number of a new piece."""
        self.categories.append(category)
        self.instances.append(instance)
        return len(self.categories) - 1


@dataclass(frozen=True)
class Side:
    """One side of a block: what kind it is, and where its front and its planting begin, m."""

    kind: str
    front_m: float  # |d| of the house fronts
    garden_m: float  # |d| where the garden, park, plaza or site starts
    walk_m: float  # |d| of the middle of the sidewalk
    verge_m: float  # |d| of the middle of the verge, 0 = none


@dataclass(frozen=True)
class Block:
    """An interval of the street."""

    start_m: float
    end_m: float
    mark: int  # PLAIN, CROSSWALK or CROSSING
    sides: tuple[Side, Side] | None  # right, left; None for crossings


@dataclass(frozen=True)
class Street:
    """Center line, blocks and the arrays of World that describe the ground."""

    line: np.ndarray  # [L, 4] float64: x, y, heading, s; 0.5 m apart
    blocks: tuple[Block, ...]
    median_m: float  # half width
    kerb_m: float  # |d|
    lane_m: float
    num_lanes: int  # per direction
    block_edges: np.ndarray
    block_marks: np.ndarray
    strips: np.ndarray
    vector: np.ndarray
    street_map: np.ndarray
    street_frame: np.ndarray
    height_map: np.ndarray
    height_frame: np.ndarray

    def pose_at(self, s: float, d: float) -> tuple[float, float, float]:
        """Return x, y in m and the heading in rad of street coordinates."""
        x = float(np.interp(s, self.line[:, 3], self.line[:, 0]))
        y = float(np.interp(s, self.line[:, 3], self.line[:, 1]))
        heading = float(np.interp(s, self.line[:, 3], self.line[:, 2]))
        return x - d * math.sin(heading), y + d * math.cos(heading), heading

    def lane_d(self, lane: int) -> float:
        """Return |d| of the middle of a lane, 0 = next to the middle of the road."""
        return self.median_m + (lane + 0.5) * self.lane_m


def _side_strips(rng, kind: str, kerb_m: float) -> tuple[list, Side]:
    """Return rows (outer edge, category, pattern, slope) from the kerb outwards, and the plan."""
    rows, verge, edge = [], 0.0, kerb_m
    if kind in ("verge", "garden", "park") and rng.random() < 0.6:
        verge = edge + 1.0
        edge += 2.0
        rows.append((edge, TERRAIN, GRASS if rng.random() < 0.7 else DIRT, 0.0))
    width = rng.uniform(2.6, 4.2) if kind in ("town", "plaza") else rng.uniform(1.8, 2.6)
    walk, edge = edge + width / 2, edge + width
    rows.append((edge, SIDEWALK, SLABS, 0.0))
    garden = edge
    if kind == "plaza":
        edge += rng.uniform(7, 12)
        rows.append((edge, OTHER_FLAT, PAVERS, 0.0))
        front = edge
    elif kind == "town":
        front = edge + 0.2
    else:
        depth = {"verge": (1.5, 3.5), "garden": (5, 9), "park": (22, 30), "site": (12, 18)}[kind]
        slope = rng.uniform(-0.05, 0.2) if kind in ("park", "garden") else rng.uniform(-0.04, 0.08)
        front = edge + rng.uniform(*depth)
        bare = 1.0 if kind == "site" else 0.25
        rows.append((1e9, TERRAIN, DIRT if rng.random() < bare else GRASS, slope))
    if rows[-1][0] < 1e9:
        rows.append((1e9, TERRAIN, GRASS if rng.random() < 0.7 else DIRT, 0.0))
    return rows, Side(kind, front, garden, walk, verge)


def _draw_blocks(rng, length_m: float, kerb_m: float) -> list[tuple[Block, list, list]]:
    """Return blocks with the strip rows of their right and left side."""
    blocks, s, since, weights = [], 0.0, 60.0, np.array([0.27, 0.2, 0.2, 0.15, 0.1, 0.08])
    while s < length_m:
        end = s + rng.uniform(17, 32)
        plans = [_side_strips(rng, str(rng.choice(KINDS, p=weights)), kerb_m) for _ in range(2)]
        sides = (plans[0][1], plans[1][1])
        blocks.append((Block(s, end, PLAIN, sides), plans[0][0], plans[1][0]))
        since += end - s
        s = end
        if since > 45 and rng.random() < 0.7:
            since, width = 0.0, rng.uniform(7, 10)
            walk = [(1e9, SIDEWALK, SLABS, 0.0)]
            road = [(1e9, ROAD, ASPHALT, 0.0)]
            blocks.append((Block(s, s + 3.0, CROSSWALK, None), walk, walk))
            blocks.append((Block(s + 3.0, s + 3.0 + width, CROSSING, None), road, road))
            s += 3.0 + width
            blocks.append((Block(s, s + 3.0, CROSSWALK, None), walk, walk))
            s += 3.0
    return blocks


def _strip_row(palette: Palette, edge, category, pattern, slope, piece: int) -> list[float]:
    color = {SIDEWALK: palette.paving, OTHER_FLAT: palette.paving}.get(category, palette.soil)
    shine = palette.reflectance(0.04, 0.32)
    return [edge, category, pattern, piece, *color(), *color(), shine, slope]


def _fill_strips(palette: Palette, blocks: list, median_m: float, kerb_m: float, pieces: Pieces):
    """Return the strips [B, 2, K, 12] float64; one look per stretch of sidewalk."""
    strips = np.zeros((len(blocks), 2, MAX_STRIPS, NUM_STRIP_COLUMNS))
    road = [kerb_m, ROAD, ASPHALT, pieces.add(ROAD), *palette.asphalt(), *palette.asphalt()]
    road += [palette.reflectance(0.04, 0.25), 0.0]
    planted = palette.rng.random() < 0.35
    median_kind = (TERRAIN, GRASS) if planted else (OTHER_FLAT, PAVERS)
    walk: list = [None, None]
    for b, (block, *sides) in enumerate(blocks):
        is_crossing = block.mark != PLAIN
        median = [0.0 if is_crossing or median_m == 0 else median_m, *road[1:]]
        if median[0] > 0:
            piece = pieces.add(median_kind[0])
            median = _strip_row(palette, median_m, *median_kind, 0.0, piece)
        for side, rows in enumerate(sides):
            if block.mark == CROSSING:
                walk[side] = None
            filled = [median, road]
            for edge, category, pattern, slope in rows:
                if category == ROAD:
                    filled.append([edge, *road[1:]])
                    continue
                if category == SIDEWALK and walk[side] is None:
                    piece = pieces.add(SIDEWALK)
                    walk[side] = _strip_row(palette, edge, SIDEWALK, pattern, slope, piece)
                if category == SIDEWALK:
                    filled.append([edge, *walk[side][1:]])
                    continue
                piece = pieces.add(category)
                filled.append(_strip_row(palette, edge, category, pattern, slope, piece))
            filled += [filled[-1]] * (MAX_STRIPS - len(filled))
            strips[b, side] = filled
    return strips


def draw_street(palette: Palette, length_m: float, pieces: Pieces) -> Street:
    """Return the street of a scene.

    Args:
        palette: random generator and color ranges of the scene.
        length_m: length of the center line.
        pieces: receives the ground's pieces.
    """
    rng = palette.rng
    line = draw_line(rng, length_m)
    median = float(rng.choice([0.0, 0.0, 0.9, 1.3]))
    num_lanes, lane, parking = int(rng.choice([1, 1, 2])), rng.uniform(3.2, 3.6), 2.4
    kerb = median + num_lanes * lane + parking
    blocks = _draw_blocks(rng, length_m, kerb)
    vector = np.zeros(NUM_STREET)
    yellow = float(rng.integers(0, 3))
    vector[:] = median, kerb, lane, num_lanes, kerb - parking, yellow, palette.seed(), 0.015
    edges = np.array([block.start_m for block, *_ in blocks] + [1e9])
    edges[0] = -1e9
    strips = _fill_strips(palette, blocks, median, kerb, pieces)

    corner = np.floor(line[:, :2].min(0) - MAP_MARGIN_M)
    extent = np.ceil(line[:, :2].max(0) + MAP_MARGIN_M) - corner
    shape = (int(extent[1]) + 1, int(extent[0]) + 1)
    street_map = draw_street_map(line, shape, (corner[0], corner[1]), 1.0)
    frame = np.array([*corner, 1.0])
    fine = tuple(int((count - 1) / HEIGHT_CELL_M) + 1 for count in shape)
    height = draw_height_map(
        street_map, frame, edges, strips, vector, fine, (corner[0], corner[1]), HEIGHT_CELL_M
    )
    # Kerbs run slantwise over the map's cells; a small blur keeps their shading from rippling.
    height = cv2.GaussianBlur(height, (0, 0), 0.9)
    slope_y, slope_x = np.gradient(height, HEIGHT_CELL_M)
    steepest = min(float(np.percentile(np.hypot(slope_x, slope_y), 99.9)) + 0.05, 1.0)
    height_frame = np.array([*corner, HEIGHT_CELL_M, steepest, float(height.max())])
    return Street(
        line,
        tuple(block for block, *_ in blocks),
        median,
        kerb,
        lane,
        num_lanes,
        edges,
        np.array([block.mark for block, *_ in blocks], np.int64),
        strips,
        vector,
        street_map,
        frame,
        height,
        height_frame,
    )

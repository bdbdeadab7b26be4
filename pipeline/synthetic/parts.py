"""The two nouns of the placement code: a Part (one primitive) and a Thing (an object of parts).

A Thing's own frame: x forward, y left, z up, origin on the ground under its middle, metres.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.synthetic.primitives import BOX, CYLINDER, ELLIPSOID
from pipeline.synthetic.textures import PLAIN

Color = tuple[float, float, float]  # 0 .. 1, red green blue


@dataclass(frozen=True)
class Part:
    """One primitive in its Thing's frame."""

    shape: int  # BOX, ELLIPSOID or CYLINDER
    center: tuple[float, float, float]  # m
    half: tuple[float, float, float]  # m, along its own axes
    color: Color
    color_b: Color = (0.1, 0.1, 0.1)
    texture: int = PLAIN
    params: tuple[float, float] = (0.0, 0.0)
    reflectance: float = 0.15  # 0 .. 1
    taper: tuple[float, float] = (0.0, 0.0)  # share by which the top is narrower, along x and y
    angles: tuple[float, float, float] = (
        0.0,
        0.0,
        0.0,
    )  # yaw, pitch, roll in rad, about its middle
    hole: float = 0.0  # share of a cylinder's caps that is open
    is_leafy: bool = False
    seed: int = 0

    def rotation(self) -> np.ndarray:
        """Return the rotation [3, 3] from the part's axes to its Thing's."""
        return rotation_from_angles(*self.angles)


@dataclass(frozen=True)
class Motion:
    """Constant speed in street coordinates."""

    s_m: float  # at time 0
    d_m: float
    speed_s: float  # m/s along the street
    speed_d: float = 0.0


@dataclass(frozen=True)
class Thing:
    """An object of the street: parts, category, where it stands and how it moves."""

    category: int  # raw nuScenes index
    parts: tuple[Part, ...]
    size_wlh: tuple[float, float, float]  # m; the annotation box
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of its origin in the world, m
    yaw: float = 0.0  # rad
    motion: Motion | None = None  # None = it stands still
    attribute: str = ""
    segments: tuple[int, ...] = field(default=())  # per part, where the parts are separate pieces

    def at(self, position: tuple[float, float, float], yaw: float) -> "Thing":
        """Return the same thing, standing elsewhere."""
        return replace(self, position=position, yaw=yaw)


def rotation_from_angles(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Return Rz(yaw) Ry(pitch) Rx(roll), [3, 3] float64; positive pitch lowers the front."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    z = np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
    y = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
    x = np.array([[1.0, 0.0, 0.0], [0.0, cr, -sr], [0.0, sr, cr]])
    return z @ y @ x


def box(low: tuple, high: tuple, color: Color, **more) -> Part:
    """Return the box between two corners (m, the Thing's frame)."""
    center = tuple((a + b) / 2 for a, b in zip(low, high, strict=True))
    half = tuple((b - a) / 2 for a, b in zip(low, high, strict=True))
    return Part(BOX, center, half, color, **more)


def rod(start: tuple, end: tuple, radius_m: float, color: Color, **more) -> Part:
    """Return the cylinder from one point to another (m, the Thing's frame)."""
    along = np.subtract(end, start)
    length = float(np.linalg.norm(along))
    yaw = math.atan2(along[1], along[0])
    pitch = math.acos(max(-1.0, min(1.0, along[2] / length)))
    center = tuple(float(value) for value in np.add(start, end) / 2)
    half = (radius_m, radius_m, length / 2)
    return Part(CYLINDER, center, half, color, angles=(yaw, pitch, 0.0), **more)


def ball(center: tuple, half: tuple, color: Color, **more) -> Part:
    """Return an ellipsoid (m, the Thing's frame)."""
    return Part(ELLIPSOID, center, half, color, **more)

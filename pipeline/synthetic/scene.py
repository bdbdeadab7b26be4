"""One made-up drive: street, things, light, and the ego's way through it."""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.palette import Palette, from_hsv
from pipeline.synthetic.placement import fill
from pipeline.synthetic.shade import (
    AMBIENT,
    CLOUD_SEED,
    CLOUDS,
    EXPOSURE,
    HAZE_M,
    NOISE,
    NUM_LIGHT,
    SKY_HIGH,
    SKY_LOW,
    SUN,
    SUN_COLOR,
)
from pipeline.synthetic.street import Pieces, draw_street
from pipeline.synthetic.world import Scene, assemble

SKY, EGO = -1, 31  # categories of the first two pieces
EGO_PIECE = 1
RUN_UP_M = 95.0  # street behind the ego at the start, and ahead of it at the end


@dataclass(frozen=True)
class Drive:
    """A scene and the ego's motion in it."""

    name: str
    split: str
    scene: Scene
    pieces: Pieces
    start_m: float  # s at time 0
    speed: float  # m/s at time 0
    acceleration: float  # m/s^2
    lane_d: float  # d of the ego's lane
    origin: tuple[float, float]  # of the scene's coordinates in the city's global frame, m

    def ego_at(self, time_s: float) -> tuple[float, float, float]:
        """Return x, y in m and yaw in rad of the ego in the scene's coordinates."""
        s = self.start_m + self.speed * time_s + 0.5 * self.acceleration * time_s**2
        return self.scene.street.pose_at(s, self.lane_d)


def draw_light(palette: Palette) -> np.ndarray:
    """Return the light vector of a scene: sun, sky, haze, exposure, white balance."""
    rng, light = palette.rng, np.zeros(NUM_LIGHT)
    elevation, azimuth = rng.uniform(0.45, 1.1), rng.uniform(0, 2 * math.pi)
    flat = math.cos(elevation)
    light[SUN : SUN + 3] = flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)
    clouds = rng.uniform(0.25, 0.85)
    power = 1.0 - 0.45 * max(clouds - 0.45, 0.0)
    warmth = rng.uniform(0.0, 0.15)
    light[SUN_COLOR : SUN_COLOR + 3] = power, power * (0.96 - 0.3 * warmth), power * (0.9 - warmth)
    hue = 0.58 + rng.uniform(-0.03, 0.03)
    light[SKY_HIGH : SKY_HIGH + 3] = from_hsv(hue, rng.uniform(0.2, 0.55), rng.uniform(0.7, 0.95))
    light[SKY_LOW : SKY_LOW + 3] = from_hsv(hue, rng.uniform(0.04, 0.15), rng.uniform(0.82, 0.94))
    light[[AMBIENT, HAZE_M, CLOUDS]] = rng.uniform(0.38, 0.52), rng.uniform(220, 500), clouds
    light[CLOUD_SEED] = palette.seed()
    gain = rng.uniform(0.85, 1.15)
    light[EXPOSURE : EXPOSURE + 3] = gain * np.exp(rng.normal(0, 0.04, 3))
    light[NOISE] = rng.uniform(0.015, 0.035)
    return light


def draw_drive(seed: int, position: int, split: str, seconds: float, version: int) -> Drive:
    """Return the drive of a scene.

    Args:
        seed: of the city.
        position: of the scene in the city.
        split: 'train' or 'val'; decides the ranges of colors.
        seconds: length of the scene.
        version: of the generator.
    """
    rng = np.random.default_rng([seed, version, position, int(split == "val")])
    palette = Palette(rng, split == "val")
    pieces = Pieces([SKY, EGO], [0, 1])
    speed, acceleration = rng.uniform(6.0, 10.5), rng.uniform(-0.25, 0.25)
    length = 2 * RUN_UP_M + 12.0 * seconds
    street = draw_street(palette, length, pieces)
    light = draw_light(palette)
    times_s = np.linspace(0.0, seconds, int(20 * seconds) + 2)
    ego_s_m = RUN_UP_M + speed * times_s + 0.5 * acceleration * times_s**2
    things = fill(street, palette, ego_s_m, times_s)
    numbers, counts = [], {}
    for thing in things:
        if thing.segments:  # stuff: its parts may be separate pieces
            own = {k: pieces.add(thing.category) for k in sorted(set(thing.segments))}
            numbers.append([own[k] for k in thing.segments])
            continue
        counts[thing.category] = counts.get(thing.category, 0) + 1
        piece = pieces.add(thing.category, counts[thing.category])
        numbers.append([piece] * len(thing.parts))
    return Drive(
        f"city-{position + 1:04d}",
        split,
        assemble(street, things, numbers, light),
        pieces,
        RUN_UP_M,
        speed,
        acceleration,
        -street.lane_d(0),
        (1000.0 + 900.0 * (position % 10), 1000.0 + 900.0 * (position // 10)),
    )

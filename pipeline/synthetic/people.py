"""Pedestrians, bicycles and motorcycles with and without riders.

As in nuScenes a rider belongs to the vehicle he rides. Things face +x.
"""

import math

from pipeline.synthetic.palette import Palette
from pipeline.synthetic.parts import Part, Thing, ball, box, rod
from pipeline.synthetic.primitives import CYLINDER
from pipeline.synthetic.textures import CLOTH, WHEEL

ADULT, CHILD, WORKER, BICYCLE, MOTORCYCLE = 2, 3, 4, 14, 21


def _body(palette: Palette, hip_m: tuple, height_m: float, lean: float, top: tuple) -> list[Part]:
    """Return torso, arms and head above the hips; `lean` is the torso's tilt forward in rad."""
    rng, scale = palette.rng, height_m / 1.75
    patterned = (float(rng.random() < 0.4), 0.0)
    shine = palette.reflectance(0.03, 0.35)
    cloth = dict(texture=CLOTH, color_b=palette.cloth(), params=patterned, reflectance=shine)
    x, y, z = hip_m
    spine = 0.58 * scale
    neck = (x + spine * math.sin(lean), y, z + spine * math.cos(lean))
    middle = tuple((a + b) / 2 for a, b in zip(hip_m, neck, strict=True))
    parts = [
        Part(
            CYLINDER,
            middle,
            (0.14 * scale, 0.22 * scale, spine / 2),
            top,
            taper=(-0.12, 0.0),
            angles=(0.0, lean, 0.0),
            **cloth,
        )
    ]
    for side in (-1, 1):
        shoulder = (neck[0], y + side * 0.25 * scale, neck[2] - 0.05 * scale)
        swing = rng.uniform(-0.15, 0.15) + 0.45 * math.sin(lean)
        hand = (shoulder[0] + swing * scale, shoulder[1], shoulder[2] - 0.55 * scale)
        parts.append(rod(shoulder, hand, 0.055 * scale, top, **cloth))
    head = (neck[0] + 0.05 * math.sin(lean), y, neck[2] + 0.17 * scale)
    parts.append(ball(head, (0.1, 0.085, 0.125), palette.skin(), reflectance=0.12))
    hair = (head[0] - 0.02, head[1], head[2] + 0.035)
    dark = palette.cloth() if rng.random() < 0.25 else (0.12, 0.09, 0.07)
    parts.append(ball(hair, (0.105, 0.095, 0.105), dark, reflectance=0.06))
    return parts


def pedestrian(palette: Palette, is_worker: bool = False) -> Thing:
    """Return an adult, a child or a construction worker in mid-step."""
    rng = palette.rng
    is_child = not is_worker and rng.random() < 0.15
    height = rng.uniform(1.05, 1.4) if is_child else rng.uniform(1.58, 1.92)
    scale = height / 1.75
    hip, stride = 0.84 * scale, rng.uniform(0.05, 0.3) * scale
    top = (0.9, 0.45, 0.08) if is_worker else palette.cloth()
    trousers = palette.cloth()
    parts = _body(palette, (0.0, 0.0, hip - 0.05), height, rng.uniform(0.0, 0.1), top)
    for side in (-1, 1):
        foot = (side * stride, side * 0.1 * scale, 0.0)
        leg = rod((0.0, side * 0.1 * scale, hip), foot, 0.085 * scale, trousers, texture=CLOTH)
        parts.append(leg)
    if rng.random() < 0.3 and not is_worker:
        z = hip + 0.1
        parts.append(box((-0.32, -0.16, z), (-0.12, 0.16, z + 0.45), palette.cloth()))
    category = WORKER if is_worker else (CHILD if is_child else ADULT)
    size = (0.65 * scale, 0.7 * scale, height)
    return Thing(category, tuple(parts), size, attribute="pedestrian.standing")


def _two_wheels(base_m: float, radius_m: float, half_width_m: float, hole: float) -> list[Part]:
    turned = (0.0, 0.0, math.pi / 2)
    half = (radius_m, radius_m, half_width_m)
    hub = (0.4, 0.4, 0.42)
    more = dict(texture=WHEEL, angles=turned, hole=hole, reflectance=0.06)
    return [
        Part(CYLINDER, (x, 0.0, radius_m), half, (0.07, 0.07, 0.07), hub, **more)
        for x in (-base_m / 2, base_m / 2)
    ]


def bicycle(palette: Palette, has_rider: bool) -> Thing:
    """Return a bicycle; the rider's legs reach the pedals."""
    color, more = palette.paint(), dict(reflectance=palette.reflectance(0.05, 0.5))
    parts = _two_wheels(1.06, 0.35, 0.025, 0.84)
    rear, front, crank = (-0.53, 0.0, 0.35), (0.53, 0.0, 0.35), (-0.1, 0.0, 0.3)
    seat, bar = (-0.25, 0.0, 0.9), (0.4, 0.0, 0.95)
    for start, end in [
        (rear, crank),
        (rear, seat),
        (crank, seat),
        (crank, bar),
        (seat, bar),
        (front, bar),
    ]:
        parts.append(rod(start, end, 0.03, color, **more))
    parts.append(rod((0.4, -0.28, 1.0), (0.4, 0.28, 1.0), 0.025, (0.1, 0.1, 0.1)))
    parts.append(box((-0.38, -0.08, 0.9), (-0.12, 0.08, 0.98), (0.08, 0.08, 0.08)))
    height = 1.1
    if has_rider:
        height = 1.75
        trousers = palette.cloth()
        parts += _body(palette, (-0.22, 0.0, 0.95), 1.72, 0.55, palette.cloth())
        for side, z in ((-1, 0.18), (1, 0.45)):
            knee = (0.2, side * 0.12, 0.62 + 0.4 * z)
            parts.append(rod((-0.2, side * 0.1, 0.95), knee, 0.08, trousers, texture=CLOTH))
            parts.append(rod(knee, (-0.08, side * 0.12, z), 0.06, trousers, texture=CLOTH))
    attribute = "cycle.with_rider" if has_rider else "cycle.without_rider"
    return Thing(BICYCLE, tuple(parts), (0.6, 1.75, height), attribute=attribute)


def motorcycle(palette: Palette, has_rider: bool) -> Thing:
    """Return a motorcycle or scooter."""
    rng = palette.rng
    color, more = palette.paint(), dict(reflectance=palette.reflectance(0.04, 0.5))
    dark = (0.1, 0.1, 0.11)
    parts = _two_wheels(1.4, 0.31, 0.07, 0.0)
    parts += [
        box((-0.45, -0.17, 0.28), (0.35, 0.17, 0.62), dark, reflectance=0.08),
        ball((0.15, 0.0, 0.8), (0.36, 0.19, 0.18), color, **more),
        box((-0.75, -0.15, 0.72), (0.0, 0.15, 0.86), dark, taper=(0.1, 0.1)),
        rod((0.7, 0.0, 0.31), (0.42, 0.0, 1.0), 0.06, (0.5, 0.5, 0.5)),
        rod((0.4, -0.36, 1.02), (0.4, 0.36, 1.02), 0.03, dark),
    ]
    if rng.random() < 0.5:  # scooter: leg shield and luggage box
        parts.append(box((0.36, -0.25, 0.3), (0.46, 0.25, 1.0), color, **more))
        parts.append(box((-0.95, -0.2, 0.85), (-0.6, 0.2, 1.2), palette.paint(), **more))
    height = 1.15
    if has_rider:
        height = 1.65
        parts += _body(palette, (-0.25, 0.0, 0.86), 1.75, 0.3, palette.cloth())
        trousers = palette.cloth()
        for side in (-1, 1):
            knee = (0.2, side * 0.24, 0.8)
            parts.append(rod((-0.25, side * 0.15, 0.9), knee, 0.09, trousers, texture=CLOTH))
            parts.append(rod(knee, (-0.05, side * 0.24, 0.3), 0.07, trousers, texture=CLOTH))
    attribute = "cycle.with_rider" if has_rider else "cycle.without_rider"
    return Thing(MOTORCYCLE, tuple(parts), (0.8, 2.1, height), attribute=attribute)

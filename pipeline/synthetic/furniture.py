"""What stands along a street: barriers, traffic cones, lamps, signs, shelters, plants, houses.

Barriers and cones are annotated objects; the rest is manmade or vegetation, split into the pieces a
person would outline (trunk and crown, wall and roof).
"""

import math

from pipeline.synthetic.palette import Palette
from pipeline.synthetic.parts import Part, Thing, ball, box, rod
from pipeline.synthetic.primitives import CYLINDER
from pipeline.synthetic.textures import (
    BANDS,
    BARK,
    BRICK,
    FACADE,
    GLASS,
    LAMP,
    LEAF,
    PANEL,
    PLASTER,
    SLATS,
    STRIPES,
    TILES,
)

BARRIER, CONE, MANMADE, VEGETATION = 9, 12, 28, 30
STEEL = (0.4, 0.41, 0.43)


def barrier(palette: Palette) -> Thing:
    """Return a concrete jersey barrier, a striped board on feet or a plastic block."""
    rng = palette.rng
    kind, length = int(rng.integers(3)), rng.uniform(1.8, 2.8)
    half, shine = length / 2, palette.reflectance(0.05, 0.6)
    if kind == 0:
        color = palette.paving()
        parts = [
            box((-half, -0.3, 0.0), (half, 0.3, 0.35), color, taper=(0.0, 0.45), reflectance=shine),
            box(
                (-half, -0.16, 0.35), (half, 0.16, 0.9), color, taper=(0.0, 0.3), reflectance=shine
            ),
        ]
    elif kind == 1:
        board = dict(texture=STRIPES, params=(0.28, 0.0), reflectance=shine)
        red = (0.8, 0.12, 0.1)
        parts = [
            box((-half, -0.04, 0.62), (half, 0.04, 0.98), red, color_b=(0.9, 0.9, 0.88), **board),
            box((-half, -0.04, 0.2), (half, 0.04, 0.42), red, color_b=(0.9, 0.9, 0.88), **board),
        ]
        for x in (-0.85 * half, 0.85 * half):
            parts.append(box((x - 0.05, -0.3, 0.0), (x + 0.05, 0.3, 0.12), STEEL))
            parts.append(box((x - 0.04, -0.03, 0.0), (x + 0.04, 0.03, 1.0), STEEL))
    else:
        color = [(0.85, 0.35, 0.08), (0.85, 0.85, 0.82), palette.paint()][int(rng.integers(3))]
        block = dict(taper=(0.04, 0.4), reflectance=shine)
        parts = [box((-half, -0.25, 0.0), (half, 0.25, 1.0), color, **block)]
    return Thing(BARRIER, tuple(parts), (0.6, length, 1.0))


def cone(palette: Palette) -> Thing:
    """Return a traffic cone on its foot, or a striped post."""
    rng = palette.rng
    height, shine = rng.uniform(0.5, 0.95), palette.reflectance(0.05, 0.8)
    color = [(0.9, 0.35, 0.05), (0.85, 0.2, 0.1), (0.85, 0.65, 0.1)][int(rng.integers(3))]
    more = dict(color_b=(0.9, 0.9, 0.9), texture=BANDS, reflectance=shine)
    radius, taper = (0.2, 0.82) if rng.random() < 0.75 else (0.09, 0.1)
    parts = [
        Part(CYLINDER, (0, 0, height / 2 + 0.04), (radius, radius, height / 2), color,
             taper=(taper, 0.0), **more),
        box((-0.24, -0.24, 0.0), (0.24, 0.24, 0.07), (0.1, 0.1, 0.1), reflectance=0.06),
    ]  # fmt: skip
    return Thing(CONE, tuple(parts), (0.48, 0.48, height + 0.08))


def lamp(palette: Palette) -> Thing:
    """Return a street lamp whose arm reaches over the road (towards +y)."""
    height = palette.rng.uniform(5.5, 8.5)
    color, shine = palette.paint(), palette.reflectance(0.05, 0.4)
    parts = (
        rod((0, 0, -0.3), (0, 0, height), 0.1, color, reflectance=shine),
        rod((0, 0, height), (0, 1.8, height + 0.3), 0.06, color, reflectance=shine),
        box((-0.15, 1.5, height + 0.2), (0.15, 2.2, height + 0.36), (0.85, 0.85, 0.8)),
        rod((0, 0, -0.2), (0, 0, 0.9), 0.16, color, reflectance=shine),
    )
    return Thing(MANMADE, parts, (0.3, 0.3, height), segments=(0, 0, 0, 0))


def sign(palette: Palette) -> Thing:
    """Return a traffic sign or a traffic light on a pole; signs shine in the LiDAR."""
    rng = palette.rng
    color = [(0.1, 0.25, 0.7), (0.8, 0.1, 0.1), (0.85, 0.85, 0.85), (0.9, 0.75, 0.1)][
        int(rng.integers(4))
    ]
    height = rng.uniform(2.2, 3.2)
    parts = [rod((0, 0, -0.3), (0, 0, height), 0.05, STEEL, reflectance=0.2)]
    if rng.random() < 0.4:
        parts.append(
            box((0.05, -0.16, height - 0.3), (0.3, 0.16, height + 0.6), (0.08, 0.09, 0.08))
        )
        for z, lit in (
            (0.42, (0.9, 0.1, 0.05)),
            (0.15, (0.3, 0.2, 0.02)),
            (-0.12, (0.02, 0.2, 0.1)),
        ):
            light = ball((-0.0, 0, height + z), (0.1, 0.1, 0.1), lit, texture=LAMP)
            parts.append(light)
    else:
        half = rng.uniform(0.25, 0.45)
        plate = dict(texture=STRIPES, params=(0.5, 0.0), reflectance=0.9)
        parts.append(box((-0.03, -half, height - half), (0.03, half, height + half), color,
                         color_b=(0.9, 0.9, 0.9), **plate))  # fmt: skip
    return Thing(MANMADE, tuple(parts), (0.5, 0.1, height), segments=tuple(0 for _ in parts))


def shelter(palette: Palette) -> Thing:
    """Return a bus shelter, open towards +y."""
    color, glass = palette.paint(), (0.45, 0.52, 0.55)
    parts = [
        box((-2, -0.75, 2.35), (2, 0.75, 2.5), color),
        box((-2, -0.72, 0.3), (2, -0.68, 2.2), glass, texture=SLATS, color_b=color),
        box((-1.5, -0.6, 0.4), (0.8, -0.2, 0.5), color),
        box((1.94, -0.7, 0.2), (2.0, 0.5, 2.3), palette.cloth(), texture=STRIPES, params=(0.7, 0)),
    ]
    parts += [
        rod((x, y, -0.2), (x, y, 2.4), 0.05, STEEL) for x in (-1.9, 1.9) for y in (-0.65, 0.6)
    ]
    return Thing(MANMADE, tuple(parts), (1.5, 4, 2.5), segments=tuple(0 for _ in parts))


def wall(palette: Palette, length_m: float) -> Thing:
    """Return a garden wall or fence along x, 0.8 to 2 m high; some are green."""
    rng = palette.rng
    height, half = rng.uniform(0.8, 2.0), length_m / 2
    is_fence = rng.random() < 0.55
    color = palette.leaves() if rng.random() < 0.3 else palette.wall()
    texture = SLATS if is_fence else FACADE
    part = box((-half, -0.1, -0.8), (half, 0.1, height), color, color_b=palette.wall(),
               texture=texture, params=(1e6, float(BRICK)), seed=palette.seed(),
               reflectance=palette.reflectance(0.04, 0.35))  # fmt: skip
    return Thing(MANMADE, (part,), (0.2, length_m, height), segments=(0,))


def hedge(palette: Palette, length_m: float) -> Thing:
    """Return a trimmed hedge along x."""
    rng = palette.rng
    height, thick = rng.uniform(0.7, 1.9), rng.uniform(0.3, 0.5)
    part = box((-length_m / 2, -thick, -0.5), (length_m / 2, thick, height), palette.leaves(),
               color_b=palette.leaves(), texture=LEAF, is_leafy=True, seed=palette.seed(),
               reflectance=palette.reflectance(0.05, 0.4))  # fmt: skip
    return Thing(VEGETATION, (part,), (2 * thick, length_m, height), segments=(0,))


def bush(palette: Palette) -> Thing:
    """Return one to three leafy balls."""
    rng = palette.rng
    color, more = palette.leaves(), dict(texture=LEAF, is_leafy=True, seed=palette.seed())
    more |= dict(color_b=palette.leaves(), reflectance=palette.reflectance(0.05, 0.4))
    parts = []
    for _ in range(int(rng.integers(1, 4))):
        x, y, r = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(0.4, 1.0)
        parts.append(ball((x, y, 0.5 * r), (r, r, 0.9 * r), color, **more))
    return Thing(VEGETATION, tuple(parts), (2, 2, 1.4), segments=tuple(0 for _ in parts))


def tree(palette: Palette) -> Thing:
    """Return a broad-leaved tree (trunk and some blobs) or a conifer (trunk and cones)."""
    rng = palette.rng
    height, radius = rng.uniform(4.5, 10.0), rng.uniform(1.3, 2.8)
    stem = height * rng.uniform(0.28, 0.42)
    shine = palette.reflectance(0.05, 0.4)
    leaves = dict(color_b=palette.leaves(), texture=LEAF, is_leafy=True, reflectance=shine)
    leaves["seed"] = palette.seed()
    color, girth = palette.leaves(), rng.uniform(0.12, 0.3)
    bark = dict(texture=BARK, reflectance=palette.reflectance(0.05, 0.35), seed=palette.seed())
    parts = [rod((0, 0, -0.5), (0, 0, stem + 1.0), girth, palette.bark(), taper=(0.3, 0.3), **bark)]
    if rng.random() < 0.25:
        for k in range(3):
            z, r = stem * 0.5 + k * (height - stem) * 0.3, radius * (1.0 - 0.25 * k)
            half = (height - stem) * 0.28
            parts.append(Part(CYLINDER, (0, 0, z + half), (r, r, half), color, taper=(0.9, 0.0),
                              **leaves))  # fmt: skip
    else:
        for k in range(int(rng.integers(3, 6))):
            angle, out = 2.4 * k + rng.uniform(0, 1), radius * rng.uniform(0.3, 0.6)
            r = radius * rng.uniform(0.55, 0.8)
            z = stem + r * 0.8 + rng.uniform(0.0, 1.0) * max(height - stem - 2 * r, 0.3)
            center = (out * math.cos(angle), out * math.sin(angle), z)
            parts.append(ball(center, (r, r, 0.85 * r), color, **leaves))
    pieces = (0, *(1 for _ in parts[1:]))
    return Thing(VEGETATION, tuple(parts), (2 * radius, 2 * radius, height), segments=pieces)


def house(palette: Palette, width_m: float, depth_m: float, height_m: float, gable: bool) -> Thing:
    """Return a building whose front faces +y: facade with windows, and a flat or gable roof."""
    rng = palette.rng
    style = int(rng.choice([BRICK, PLASTER, PANEL, GLASS], p=[0.35, 0.35, 0.18, 0.12]))
    if gable:
        style = BRICK if rng.random() < 0.5 else PLASTER
    a, b = width_m / 2, depth_m / 2
    trim = (0.85, 0.84, 0.8) if rng.random() < 0.6 else palette.wall()
    more = dict(params=(float(rng.uniform(1.9, 3.4)), float(style)), seed=palette.seed())
    shine = palette.reflectance(0.04, 0.35)
    parts = [box((-a, -b, -1.0), (a, b, height_m), palette.wall(), color_b=trim, texture=FACADE,
                 reflectance=shine, **more)]  # fmt: skip
    pieces = [0]
    if gable:
        rise, over = rng.uniform(1.5, 3.2), 0.4
        roof = dict(texture=TILES, seed=palette.seed(), reflectance=palette.reflectance(0.04, 0.3))
        parts.append(box((-a - over, -b - over, height_m), (a + over, b + over, height_m + rise),
                         palette.wall(), taper=(0.0, 1.0), **roof))  # fmt: skip
        pieces.append(1)
    else:
        parts.append(
            box((-a - 0.12, -b - 0.12, height_m), (a + 0.12, b + 0.12, height_m + 0.5), trim)
        )
        pieces.append(0)
    if rng.random() < 0.4:
        x = rng.uniform(-0.6, 0.6) * a
        parts.append(box((x - 1.3, b, 2.3), (x + 1.3, b + 1.1, 2.6), palette.cloth(),
                         texture=STRIPES, color_b=(0.9, 0.9, 0.88), params=(0.3, 0.0)))  # fmt: skip
        pieces.append(0)
    return Thing(MANMADE, tuple(parts), (depth_m, width_m, height_m), segments=tuple(pieces))

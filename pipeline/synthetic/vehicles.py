"""Cars, vans, trucks, buses, trailers and excavators, each drawn anew: sizes, colors, reflectance.

Every builder returns a Thing at the origin, facing +x.
"""

from pipeline.synthetic.palette import Palette
from pipeline.synthetic.parts import Part, Thing, box, rod
from pipeline.synthetic.primitives import BOX, CYLINDER
from pipeline.synthetic.textures import BUS, CABIN, CAR_BODY, CARGO, PLAIN, STRIPES, WHEEL

BUS_BENDY, BUS_RIGID, CAR, CONSTRUCTION, TRAILER, TRUCK = 15, 16, 17, 18, 22, 23
RUBBER = (0.07, 0.07, 0.07)


def wheels(axles_m: list[float], half_track_m: float, radius_m: float) -> list[Part]:
    """Return two wheels per axle."""
    turned = (0.0, 0.0, 1.5707963)
    return [
        Part(
            CYLINDER,
            (x, side * half_track_m, radius_m),
            (radius_m, radius_m, 0.12),
            RUBBER,
            (0.5, 0.5, 0.52),
            WHEEL,
            reflectance=0.05,
            angles=turned,
        )
        for x in axles_m
        for side in (-1, 1)
    ]


def car(palette: Palette) -> Thing:
    """Return a saloon, hatchback, estate, off-roader or van."""
    rng = palette.rng
    kind = rng.choice(
        ["saloon", "hatchback", "estate", "suv", "van"], p=[0.3, 0.25, 0.15, 0.2, 0.1]
    )
    length, width, height = rng.uniform(4.3, 4.9), rng.uniform(1.72, 1.95), rng.uniform(1.42, 1.55)
    front, rear, belt = 0.22, -0.32, 0.9  # ends of the cabin as shares of the length, belt line
    if kind == "hatchback":
        length, rear = length - 0.6, -0.45
    elif kind == "estate":
        rear = -0.47
    elif kind == "suv":
        height, rear, belt = height + 0.25, -0.46, 1.02
    elif kind == "van":
        length, height, front, rear, belt = length + 0.3, 2.05, 0.36, -0.49, 1.1
    paint, shine = palette.paint(), palette.reflectance(0.04, 0.6)
    trim = tuple(0.5 * value for value in paint)
    parts = [
        box(
            (-length / 2, -width / 2, 0.24),
            (length / 2, width / 2, belt),
            paint,
            color_b=(0.75, 0.75, 0.72),
            texture=CAR_BODY,
            reflectance=shine,
            taper=(0.04, 0.07),
            seed=palette.seed(),
        ),
        box(
            (rear * length, -0.47 * width, belt),
            (front * length, 0.47 * width, height),
            paint,
            color_b=trim,
            texture=CABIN,
            reflectance=shine,
            taper=(0.14 if kind == "van" else 0.36, 0.2),
            seed=palette.seed(),
        ),
    ]
    parts += wheels([-0.3 * length, 0.3 * length], 0.44 * width, 0.32)
    return Thing(CAR, tuple(parts), (width, length, height), attribute="vehicle.parked")


def truck(palette: Palette) -> Thing:
    """Return a cab with a cargo box, or a pick-up with an open bed."""
    rng = palette.rng
    paint, shine = palette.paint(), palette.reflectance(0.04, 0.5)
    if rng.random() < 0.3:
        length, width, height = rng.uniform(5.2, 5.9), 1.95, 1.85
        parts = [
            box((-length / 2, -0.97, 0.4), (length / 2, 0.97, 1.05), paint, texture=CAR_BODY,
                color_b=(0.7, 0.7, 0.7), reflectance=shine, taper=(0.03, 0.05)),
            box((-0.3, -0.9, 1.05), (1.6, 0.9, height), paint, texture=CABIN, reflectance=shine,
                taper=(0.3, 0.15)),
            box((-length / 2, -0.95, 1.05), (-length / 2 + 0.1, 0.95, 1.3), paint),
        ]  # fmt: skip
        axles, radius = [-0.31 * length, 0.31 * length], 0.4
    else:
        length, width = rng.uniform(6.3, 9.5), rng.uniform(2.2, 2.5)
        height, cab = rng.uniform(2.8, 3.6), rng.uniform(1.7, 2.1)
        half, nose = width / 2, length / 2 - cab
        body = palette.paint() if rng.random() < 0.6 else paint
        parts = [
            box((nose, -half, 0.5), (length / 2, half, 1.5), paint, texture=CAR_BODY,
                color_b=(0.2, 0.2, 0.2), reflectance=shine),
            box((nose, -half, 1.5), (length / 2, half, 2.4), paint, texture=CABIN,
                reflectance=shine, taper=(0.12, 0.04)),
            box((-length / 2, -half, 0.95), (nose - 0.15, half, height), body, texture=CARGO,
                color_b=palette.cloth(), reflectance=palette.reflectance(0.05, 0.4)),
            box((-length / 2, -0.4, 0.5), (nose, 0.4, 0.95), (0.12, 0.12, 0.13)),
        ]  # fmt: skip
        axles, radius = [-0.36 * length, -0.22 * length, 0.36 * length], 0.48
    parts += wheels(axles, width / 2 - 0.13, radius)
    return Thing(TRUCK, tuple(parts), (width, length, height), attribute="vehicle.parked")


def bus(palette: Palette) -> Thing:
    """Return a rigid bus, now and then a longer bendy one with a joint."""
    rng = palette.rng
    length, width, height = rng.uniform(10, 12), 2.55, rng.uniform(3.0, 3.3)
    paint, stripe = palette.paint(), palette.cloth()
    more = dict(texture=BUS, color_b=stripe, reflectance=palette.reflectance(0.04, 0.4))
    axles = [-0.27 * length, 0.33 * length]
    category = BUS_RIGID
    half = length / 2
    parts = [box((-half, -1.27, 0.35), (half, 1.27, height), paint, **more)]
    if rng.random() < 0.25:
        category, length = BUS_BENDY, length + 6.0
        parts = [
            box((-half + 3, -1.27, 0.35), (half + 3, 1.27, height), paint, **more),
            box((-half + 2.2, -1.15, 0.5), (-half + 3, 1.15, height - 0.15), (0.1, 0.1, 0.1)),
            box((-half - 3, -1.27, 0.35), (-half + 2.2, 1.27, height), paint, **more),
        ]
        axles = [axles[0] + 3, axles[1] + 3, -half - 0.8]
    parts += wheels(axles, 1.15, 0.48)
    return Thing(category, tuple(parts), (width, length, height), attribute="vehicle.parked")


def trailer(palette: Palette) -> Thing:
    """Return a trailer without its tractor: a long box, or a low flat bed with a load."""
    rng = palette.rng
    width, dark = 2.4, (0.15, 0.15, 0.16)
    shine = palette.reflectance(0.05, 0.4)
    if rng.random() < 0.6:
        length, height = rng.uniform(7, 11), rng.uniform(3.1, 3.8)
        parts = [
            box((-length / 2, -1.2, 1.05), (length / 2, 1.2, height), palette.paint(),
                texture=CARGO, color_b=palette.cloth(), reflectance=shine),
            box((-length / 2, -0.35, 0.7), (length / 2, 0.35, 1.05), dark),
            rod((0.4 * length, 0.5, 0.0), (0.4 * length, 0.5, 1.05), 0.08, dark),
            rod((0.4 * length, -0.5, 0.0), (0.4 * length, -0.5, 1.05), 0.08, dark),
        ]  # fmt: skip
        axles = [-0.4 * length, -0.28 * length]
    else:
        length, height = rng.uniform(4.5, 6.5), 1.7
        parts = [
            box((-length / 2, -1.2, 0.6), (length / 2, 1.2, 0.85), palette.paint(),
                reflectance=shine),
            box((-0.4 * length, -0.9, 0.85), (0.3 * length, 0.9, height), palette.soil(),
                color_b=palette.paint(), texture=CARGO, taper=(0.2, 0.3)),
            box((length / 2, -0.08, 0.55), (length / 2 + 1.2, 0.08, 0.7), dark),
        ]  # fmt: skip
        axles = [-0.12 * length, 0.06 * length]
    parts += wheels(axles, 1.08, 0.42)
    return Thing(TRAILER, tuple(parts), (width, length, height), attribute="vehicle.parked")


def excavator(palette: Palette) -> Thing:
    """Return a tracked excavator with a bent arm, mostly yellow or orange."""
    rng = palette.rng
    hue = [(0.85, 0.6, 0.1), (0.85, 0.4, 0.1), (0.75, 0.68, 0.2), palette.paint()]
    paint = hue[int(rng.integers(4))]
    reach, more = rng.uniform(0.9, 1.15), dict(reflectance=palette.reflectance(0.05, 0.4))
    dark = (0.12, 0.12, 0.12)
    tread = dict(texture=STRIPES, color_b=(0.2, 0.2, 0.2), params=(0.14, 0.0), reflectance=0.06)
    parts = [
        box((-1.7, -1.4, 0.0), (1.7, -0.85, 0.8), dark, taper=(0.15, 0), **tread),
        box((-1.7, 0.85, 0.0), (1.7, 1.4, 0.8), dark, taper=(0.15, 0), **tread),
        box((-1.9, -1.3, 0.95), (1.3, 1.3, 1.9), paint, **more),
        box((-0.1, 0.2, 1.9), (1.3, 1.25, 3.0), paint, texture=CABIN, taper=(0.15, 0.05), **more),
        box((-2.1, -1.2, 1.0), (-1.3, 1.2, 2.1), paint, texture=PLAIN, **more),
    ]
    elbow, wrist, tip = (3.0 * reach, -0.4, 4.2), (5.0 * reach, -0.4, 2.6), (4.9 * reach, -0.4, 0.9)
    for start, end, half in [
        ((1.0, -0.4, 1.5), elbow, 0.26),
        (elbow, wrist, 0.2),
        (wrist, tip, 0.15),
    ]:
        arm = rod(start, end, half, paint, **more)
        parts.append(
            Part(BOX, arm.center, (half, half, arm.half[2]), paint, angles=arm.angles, **more)
        )
    parts.append(box((4.5 * reach, -0.95, 0.2), (5.3 * reach, 0.15, 1.0), dark, taper=(0.4, 0.0)))
    size = (2.8, 2.1 + 5.3 * reach, 4.3)
    return Thing(CONSTRUCTION, tuple(parts), size, attribute="vehicle.stopped")

"""Rays against primitives by hand, and the grid against a plain loop over everything."""

import math

import numpy as np
import pytest

from pipeline.synthetic.cast import GROUND, NOTHING, trace
from pipeline.synthetic.frozen import height_at
from pipeline.synthetic.parts import Part, rod, rotation_from_angles
from pipeline.synthetic.primitives import BOX, CYLINDER, ELLIPSOID, IS_LEAFY, cross
from pipeline.synthetic.scene import draw_drive
from pipeline.synthetic.world import _rows, annotation_box, world_at
from pipeline.synthetic.write import VERSION


def _interval(part, origin, direction):
    from pipeline.synthetic.parts import Thing

    floats, ints = _rows(Thing(28, (part,), (1, 1, 1)), (1,))
    return cross(floats, ints, 0, *map(float, origin), *map(float, direction))


def test_box_worked_by_hand():
    box = Part(BOX, (5.0, 0.0, 1.0), (2.0, 1.0, 1.0), (1, 1, 1))
    hit = _interval(box, (0, 0, 1), (1, 0, 0))
    assert (hit.enter, hit.leave) == pytest.approx((3.0, 7.0))
    assert (hit.nx, hit.ny, hit.nz) == (-1.0, 0.0, 0.0)


def test_tapered_box_is_narrower_above():
    # A gable: full width at z = 0, a ridge at z = 2, so half the width (1 m of 2) at z = 1.
    roof = Part(BOX, (0.0, 0.0, 1.0), (1.0, 2.0, 1.0), (1, 1, 1), taper=(0.0, 1.0))
    hit = _interval(roof, (0, -10, 1), (0, 1, 0))
    assert (hit.enter, hit.leave) == pytest.approx((9.0, 11.0))


def test_cone_worked_by_hand():
    # Radius 1 at z = 0, 0 at z = 2: at z = 1 the radius is 0.5.
    cone = Part(CYLINDER, (0.0, 0.0, 1.0), (1.0, 1.0, 1.0), (1, 1, 1), taper=(1.0, 0.0))
    hit = _interval(cone, (-5, 0, 1), (1, 0, 0))
    assert (hit.enter, hit.leave) == pytest.approx((4.5, 5.5))
    # From straight above: the side at z = 1 over x = 0.5, the base at z = 0.
    hit = _interval(cone, (0.5, 0, 9), (0, 0, -1))
    assert (hit.enter, hit.leave) == pytest.approx((8.0, 9.0))


def test_hollow_wheel_lets_rays_through_its_middle_only():
    wheel = Part(CYLINDER, (0.0, 0.0, 0.0), (1.0, 1.0, 0.1), (1, 1, 1), hole=0.8)
    assert _interval(wheel, (0.3, 0, 5), (0, 0, -1)).enter > 1e9
    assert _interval(wheel, (0.9, 0, 5), (0, 0, -1)).enter == pytest.approx(4.9)


def test_intervals_turn_with_the_part():
    rng = np.random.default_rng(0)
    for shape in (BOX, ELLIPSOID, CYLINDER):
        for _ in range(50):
            angles = tuple(rng.uniform(-3, 3, 3))
            half, taper = tuple(rng.uniform(0.3, 2, 3)), (rng.uniform(0, 0.9), 0.2)
            origin = rng.uniform(-4, 4, 3)
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            turn = rotation_from_angles(*angles)
            plain = Part(shape, (0.0, 0.0, 0.0), half, (1, 1, 1), taper=taper)
            turned = Part(shape, (0.0, 0.0, 0.0), half, (1, 1, 1), taper=taper, angles=angles)
            one = _interval(plain, origin, direction)
            two = _interval(turned, turn @ origin, turn @ direction)
            assert (one.enter > one.leave) == (two.enter > two.leave)
            if one.enter <= one.leave:
                assert (two.enter, two.leave) == pytest.approx((one.enter, one.leave), abs=1e-6)


def test_rod_runs_from_start_to_end():
    part = rod((1.0, 2.0, 0.0), (3.0, 1.0, 4.0), 0.1, (1, 1, 1))
    along = part.rotation() @ np.array([0.0, 0.0, part.half[2]])
    np.testing.assert_allclose(np.array(part.center) + along, (3.0, 1.0, 4.0), atol=1e-12)


@pytest.fixture(scope="module")
def drive():
    return draw_drive(3, 0, "train", 1.0, VERSION)


def _rays(drive, count):
    rng = np.random.default_rng(1)
    x, y, _ = drive.ego_at(0.4)
    azimuth, elevation = rng.uniform(-math.pi, math.pi, count), rng.uniform(-0.4, 0.25, count)
    flat = np.cos(elevation)
    directions = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], 1)
    return np.array([x, y, 1.7]), directions


def test_grid_agrees_with_a_loop_over_every_primitive(drive):
    world = world_at(drive.scene, 0.4)
    origin, directions = _rays(drive, 300)
    met = 0
    for direction in directions:
        hit = trace(world, *origin, *direction, 80.0)
        best = math.inf
        for p in range(len(world.floats)):
            interval = cross(world.floats, world.ints, p, *origin, *direction)
            is_solid = world.ints[p, IS_LEAFY] == 0
            if is_solid and 1e-3 < interval.enter <= interval.leave:
                best = min(best, interval.enter)
        if hit.prim >= 0 and world.ints[hit.prim, IS_LEAFY] == 0:
            assert hit.t == best
            met += 1
        else:  # leaves, ground or sky: then no solid primitive is nearer
            assert hit.t <= best
    assert met > 80


def test_ground_hits_lie_on_the_height_map(drive):
    world = world_at(drive.scene, 0.4)
    origin, directions = _rays(drive, 400)
    hits = [(trace(world, *origin, *d, 80.0), d) for d in directions]
    grounded = [(hit, d) for hit, d in hits if hit.prim == GROUND]
    assert len(grounded) > 100 and any(hit.prim == NOTHING for hit, _ in hits)
    for hit, direction in grounded:
        x, y, z = origin + hit.t * direction
        # The march stops 2 mm + 0.1 mm per metre above the ground.
        assert abs(z - height_at(world.height_map, world.height_frame, x, y)) < 0.015
        # Nothing of the ground was skipped on the way.
        for t in np.linspace(0.0, 0.999 * hit.t, 200):
            x, y, z = origin + t * direction
            assert z > height_at(world.height_map, world.height_frame, x, y) - 1e-3


def test_boxes_hold_their_parts(drive):
    for thing in drive.scene.things[:40]:
        middle, size_wlh = annotation_box(thing)
        half = size_wlh[[1, 0, 2]] / 2
        for part in thing.parts:
            assert (np.abs(np.array(part.center) - middle) <= half + 0.9).all()

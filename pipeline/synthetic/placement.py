"""Fills a street: houses, plants, furniture, parked vehicles, building sites and traffic.

Everything is drawn from the palette's generator in a fixed order, so a seed makes one city. Numbers
are chosen for a long tail: hundreds of facades and crowns, tens of cars, one excavator in a while.
"""

import math

import numpy as np

from pipeline.synthetic import furniture, people, vehicles
from pipeline.synthetic.ground import CROSSING, PLAIN
from pipeline.synthetic.palette import Palette
from pipeline.synthetic.parts import Motion, Thing
from pipeline.synthetic.placer import DRIVING, PARKED, Placer
from pipeline.synthetic.street import Block, Side, Street


def facing(sign: int) -> float:
    """Return the turn that points +y of a thing on side `sign` (-1 right, 1 left) to the road."""
    return math.pi if sign > 0 else 0.0


def _houses(placer: Placer, block: Block, side: Side, sign: int) -> None:
    rng = placer.rng
    gable = side.kind == "garden" or (side.kind == "verge" and rng.random() < 0.5)
    s = block.start_m + rng.uniform(0.3, 2.0)
    while s < block.end_m - 5:
        width = min(rng.uniform(7, 12) if gable else rng.uniform(9, 18), block.end_m - s - 0.3)
        depth = rng.uniform(7, 12)
        height = rng.uniform(3.4, 6.8) if gable else 3.2 * int(rng.integers(2, 7)) + 0.4
        house = furniture.house(placer.palette, width, depth, height, gable)
        d = side.front_m + depth / 2 + (rng.uniform(0, 1.5) if gable else 0.0)
        placer.put(house, s + width / 2, sign * d, facing(sign))
        s += width + (rng.uniform(1.5, 5) if gable else (0.1 if rng.random() < 0.75 else 3.5))
    if rng.random() < 0.5:  # a second row for the skyline
        width, depth = rng.uniform(12, 22), rng.uniform(10, 16)
        tower = furniture.house(placer.palette, width, depth, rng.uniform(10, 30), False)
        middle = (block.start_m + block.end_m) / 2
        placer.put(tower, middle, sign * (side.front_m + 18 + depth), facing(sign))


def _planting(placer: Placer, block: Block, side: Side, sign: int) -> None:
    rng, palette, length = placer.rng, placer.palette, block.end_m - block.start_m
    if side.verge_m:
        for s in np.arange(block.start_m + 3, block.end_m - 2, rng.uniform(6, 10)):
            if rng.random() < 0.75:
                placer.put(furniture.tree(palette), s + rng.uniform(-1, 1), sign * side.verge_m)
            elif rng.random() < 0.5:
                placer.put(furniture.bush(palette), s, sign * side.verge_m)
    if side.kind == "park":
        for _ in range(int(rng.integers(6, 12))):
            thing = furniture.tree(palette) if rng.random() < 0.6 else furniture.bush(palette)
            s = rng.uniform(block.start_m + 1, block.end_m - 1)
            placer.put(thing, s, sign * (side.garden_m + rng.uniform(1.5, 26)), rng.uniform(0, 6))
    if side.kind in ("garden", "verge", "park") and rng.random() < 0.75:
        draw, edge = rng.random(), sign * (side.garden_m + 0.5)
        for s in np.arange(block.start_m + 2.5, block.end_m - 2, 5.0):
            if rng.random() < 0.8:
                maker = furniture.hedge if draw < 0.45 else furniture.wall
                placer.put(maker(palette, min(4.8, length)), s, edge)
    if side.kind == "garden":
        for _ in range(int(rng.integers(2, 6))):
            d = sign * rng.uniform(side.garden_m + 1.2, side.front_m)
            thing = furniture.bush(palette) if rng.random() < 0.7 else furniture.tree(palette)
            placer.put(thing, rng.uniform(block.start_m + 1, block.end_m - 1), d)


def _furniture(placer: Placer, block: Block, side: Side, sign: int) -> None:
    rng, palette, kerb = placer.rng, placer.palette, placer.street.kerb_m
    for s in np.arange(block.start_m + rng.uniform(2, 10), block.end_m, rng.uniform(16, 26)):
        placer.put(furniture.lamp(palette), s, sign * (kerb + 0.45), facing(sign))
    if rng.random() < 0.6:
        s, turn = rng.uniform(block.start_m, block.end_m), (math.pi if sign < 0 else 0.0)
        placer.put(furniture.sign(palette), s, sign * (kerb + 0.4), turn)
    if side.kind in ("town", "plaza") and rng.random() < 0.25:
        s = (block.start_m + block.end_m) / 2
        placer.put(furniture.shelter(palette), s, sign * (side.garden_m - 0.9), facing(sign))
    for _ in range(int(rng.integers(0, 3))):  # bollards, boxes: thin and low manmade things
        post = furniture.wall(palette, rng.uniform(0.3, 1.2))
        s = rng.uniform(block.start_m, block.end_m)
        placer.put(post, s, sign * (side.garden_m - 0.25), rng.uniform(0, 0.3))
    for _ in range(int(rng.poisson(0.5))):
        bike = people.bicycle(palette, False)
        s = rng.uniform(block.start_m, block.end_m)
        placer.put(bike, s, sign * (side.garden_m - 0.6), rng.uniform(-0.4, 0.4))


def _parked(placer: Placer, block: Block, sign: int) -> None:
    rng, d = placer.rng, sign * (placer.street.kerb_m - 1.2)
    s, density = block.start_m + rng.uniform(0.5, 4), rng.uniform(0.2, 0.75)
    while s < block.end_m - 3:
        thing = placer.draw(PARKED)
        length = thing.size_wlh[1]
        if s + length > block.end_m:
            break
        if rng.random() < density:
            turn = 0.0 if sign < 0 else math.pi
            placer.put(thing, s + length / 2, d, turn + rng.normal(0, 0.02))
            s += length
        s += rng.uniform(0.7, 2.5)


def _site(placer: Placer, block: Block, sign: int) -> None:
    """A building site: barriers and cones along the kerb lane, workers, an excavator."""
    rng, palette, kerb = placer.rng, placer.palette, placer.street.kerb_m
    middle = (block.start_m + block.end_m) / 2
    turn = rng.uniform(-math.pi, math.pi)
    placer.put(vehicles.excavator(palette), middle, sign * (kerb + rng.uniform(5.5, 9)), turn)
    for s in np.arange(block.start_m + 1.5, block.end_m - 1, 3.0):
        if rng.random() < 0.85:
            placer.put(furniture.barrier(palette), s, sign * (kerb - 0.2), rng.normal(0, 0.04))
    for k, s in enumerate(np.arange(block.start_m, block.end_m, 2.5)):
        out = 2.3 * min(1.0, (k + 1) / 4)
        placer.put(furniture.cone(palette), s, sign * (kerb - out), rng.uniform(0, 1))
    for _ in range(int(rng.integers(1, 4))):
        s = rng.uniform(block.start_m, block.end_m)
        worker = people.pedestrian(palette, is_worker=True)
        placer.put(worker, s, sign * (kerb + rng.uniform(0.8, 8)), rng.uniform(-3, 3))


def _walkers(placer: Placer, block: Block, side: Side, sign: int) -> None:
    rng = placer.rng
    for _ in range(int(rng.poisson(1.7 if side.kind in ("town", "plaza") else 0.9))):
        speed = float(rng.choice([-1, 1])) * rng.uniform(0.8, 1.7)
        d = sign * (side.walk_m + rng.uniform(-0.7, 0.7))
        person = people.pedestrian(placer.palette)
        s = rng.uniform(block.start_m, block.end_m)
        if rng.random() < 0.25:
            placer.put(person, s, d, rng.uniform(-3, 3))
        else:
            placer.send(person, Motion(s, d, speed))


def _crossing(placer: Placer, block: Block) -> None:
    """Cars waiting in the side street, people on the crosswalk, signs at the corners."""
    rng, palette, kerb = placer.rng, placer.palette, placer.street.kerb_m
    middle = (block.start_m + block.end_m) / 2
    for sign in (-1, 1):
        lane = 0.25 * (block.end_m - block.start_m) * sign
        d = kerb + rng.uniform(4, 7)
        while d < 45 and rng.random() < 0.75:
            thing = placer.draw(DRIVING)
            turn = -sign * math.pi / 2
            placer.put(thing, middle + lane, sign * (d + thing.size_wlh[1] / 2), turn)
            d += thing.size_wlh[1] + rng.uniform(1.5, 9)
        for s in (block.start_m - 0.6, block.end_m + 0.6):
            if rng.random() < 0.6:
                turn = math.pi if sign < 0 else 0.0
                placer.put(furniture.sign(palette), s, sign * (kerb + 0.5), turn)
    for s in (block.start_m - 1.5, block.end_m + 1.5):
        for _ in range(int(rng.poisson(0.8))):
            d, speed = rng.uniform(-kerb, kerb), float(rng.choice([-1, 1])) * rng.uniform(0.8, 1.5)
            placer.send(people.pedestrian(palette), Motion(s, d, 0.01, speed))


def _traffic(placer: Placer, ego_s_m: float, ego_speed: float, seconds: float) -> None:
    """Vehicles with and against the ego, cyclists at the lanes' edge; none runs into the ego."""
    rng, street = placer.rng, placer.street
    for direction in (-1, 1):  # -1: oncoming, on the left
        for lane in range(street.num_lanes):
            base = ego_speed if direction > 0 else rng.uniform(5, 11)
            low, high = ego_s_m - 55, ego_s_m + 75 + (0 if direction > 0 else 2 * base * seconds)
            s = low + rng.uniform(0, 12)
            while s < high:
                thing = placer.draw(DRIVING)
                gap = thing.size_wlh[1] / 2 + 8.0
                is_ego_lane = direction > 0 and lane == 0
                if not (is_ego_lane and abs(s - ego_s_m) < gap):
                    d = -direction * street.lane_d(lane) + rng.normal(0, 0.12)
                    speed = direction * (base + (0.0 if is_ego_lane else rng.normal(0, 0.3)))
                    placer.send(thing, Motion(s, d, speed))
                s += thing.size_wlh[1] + rng.uniform(9, 30)
    for _ in range(int(rng.integers(2, 5))):
        sign = float(rng.choice([-1, 1]))
        d = sign * (street.kerb_m - 2.35)
        s, speed = ego_s_m + rng.uniform(-25, 45), -sign * rng.uniform(3.0, 6.0)
        placer.send(people.bicycle(placer.palette, True), Motion(s, d, speed))


def _runs_into(thing: Thing, street: Street, ego_s_m: np.ndarray, times_s: np.ndarray) -> bool:
    """Return whether a mover comes within about a metre of the ego, m along the street by time."""
    motion = thing.motion
    if motion is None:
        return False
    width, length, _ = thing.size_wlh
    ahead = np.abs(motion.s_m + motion.speed_s * times_s - ego_s_m)
    beside = np.abs(motion.d_m + motion.speed_d * times_s + street.lane_d(0))
    return bool(((ahead < 3.2 + length / 2) & (beside < 1.2 + width / 2)).any())


def fill(street: Street, palette: Palette, ego_s_m: np.ndarray, times_s: np.ndarray) -> list[Thing]:
    """Return the things of a scene.

    Args:
        street: the street to fill.
        palette: random generator and colors.
        ego_s_m: [T] float64, where along the street the ego is.
        times_s: [T] float64, at these times since the scene's start.
    """
    placer, num_sites = Placer(street, palette), 0
    start_m, seconds = float(ego_s_m[0]), float(times_s[-1])
    for block in street.blocks:
        if block.mark == CROSSING:
            _crossing(placer, block)
        if block.mark != PLAIN or block.sides is None:
            continue
        near = -10 < block.start_m - start_m < 45 + float(ego_s_m[-1]) - start_m
        for side, sign in zip(block.sides, (-1, 1), strict=True):
            # Every scene has at least one building site near the ego: the tail must not vanish.
            is_site = side.kind == "site" or (near and num_sites == 0 and sign > 0)
            if side.kind != "park" and not (is_site and side.kind == "garden"):
                _houses(placer, block, side, sign)
            _planting(placer, block, side, sign)
            _furniture(placer, block, side, sign)
            _walkers(placer, block, side, sign)
            if is_site:
                _site(placer, block, sign)
                num_sites += 1
            else:
                _parked(placer, block, sign)
    _traffic(placer, start_m, (float(ego_s_m[-1]) - start_m) / max(seconds, 0.1), seconds)
    return [thing for thing in placer.things if not _runs_into(thing, street, ego_s_m, times_s)]

"""Collects the things of a street: stands them, sends them off, and draws them from shares."""

from dataclasses import replace

import numpy as np

from pipeline.synthetic import people, vehicles
from pipeline.synthetic.frozen import height_at
from pipeline.synthetic.palette import Palette
from pipeline.synthetic.parts import Motion, Thing
from pipeline.synthetic.street import Street

PARKED = [
    (lambda p: vehicles.car(p), 0.66),
    (lambda p: vehicles.truck(p), 0.11),
    (lambda p: vehicles.trailer(p), 0.07),
    (lambda p: vehicles.bus(p), 0.03),
    (lambda p: people.motorcycle(p, False), 0.08),
    (lambda p: people.bicycle(p, False), 0.05),
]
DRIVING = [
    (lambda p: vehicles.car(p), 0.62),
    (lambda p: vehicles.truck(p), 0.12),
    (lambda p: vehicles.bus(p), 0.12),
    (lambda p: people.motorcycle(p, True), 0.14),
]


class Placer:
    """Collects the things of one street."""

    def __init__(self, street: Street, palette: Palette) -> None:
        """Start with an empty street."""
        self.street, self.palette, self.rng = street, palette, palette.rng
        self.things: list[Thing] = []

    def put(self, thing: Thing, s: float, d: float, turn: float = 0.0) -> None:
        """Stand a thing at street coordinates, turned from the street's direction by `turn` rad."""
        x, y, heading = self.street.pose_at(s, d)
        z = height_at(self.street.height_map, self.street.height_frame, x, y)
        self.things.append(thing.at((x, y, float(z)), heading + turn))

    def send(self, thing: Thing, motion: Motion) -> None:
        """Let a thing move along the street."""
        kind = thing.attribute.split(".")[0]
        attribute = {"vehicle": "vehicle.moving", "pedestrian": "pedestrian.moving"}
        self.things.append(
            replace(thing, motion=motion, attribute=attribute.get(kind, thing.attribute))
        )

    def draw(self, table: list) -> Thing:
        """Return a thing drawn from (builder, share) pairs."""
        shares = np.array([share for _, share in table])
        return table[int(self.rng.choice(len(table), p=shares / shares.sum()))][0](self.palette)

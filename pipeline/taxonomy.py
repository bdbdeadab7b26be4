"""A taxonomy: classes in the order of their train ids, and the raw ids that go into each.

One data set may be evaluated under several; the stores keep raw ids, so all share one store.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import orjson

from pipeline.errors import check
from pipeline.files import sha256

IGNORED = 255  # train id of points that are neither trained on nor evaluated


@dataclass(frozen=True)
class Taxonomy:
    """What is evaluated."""

    classes: tuple[str, ...]  # by train id
    colors: dict[str, tuple[int, int, int]]  # class -> RGB
    raw_to_train: dict[int, int]

    def check(self, where: str, raw_names: Collection[int]) -> None:
        """Refuse colors or a map that do not fit the classes.

        Args:
            where: file and key, for the message.
            raw_names: the raw ids that the map must list.

        Raises:
            UserError: what does not fit.
        """
        odd = sorted(set(self.colors) ^ set(self.classes))
        check(
            not odd,
            f"{where}: colors must name the classes, got only in one of the two: {odd}; "
            "add or drop them",
        )
        train_ids = range(len(self.classes))
        bad = [t for t in self.raw_to_train.values() if not (t == IGNORED or t in train_ids)]
        check(
            not bad, f"{where}: raw_to_train must hold 0..{len(self.classes) - 1} or 255, got {bad}"
        )
        lacking = sorted(set(self.raw_to_train) ^ set(raw_names))
        check(
            not lacking,
            f"{where}: raw_names and raw_to_train must have the same ids, got {lacking}",
        )

    def label_map(self) -> np.ndarray:
        """Return the table [65536] uint8 from raw id to train id, 255 = ignored or unknown."""
        table = np.full(65536, IGNORED, np.uint8)
        table[list(self.raw_to_train)] = list(self.raw_to_train.values())
        return table

    def content_hash(self) -> str:
        """Return a hash of class order and label map."""
        return sha256(orjson.dumps([self.classes, self.label_map().tolist()]))[:16]

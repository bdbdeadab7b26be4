"""The stores of one data set, opened together and checked to belong together.

Opened in the process that reads them (a loader worker), never before a fork.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.errors import UserError, check, unknown_name
from pipeline.geometry import store_pixels
from pipeline.index import Index, read_index
from pipeline.store import Store, open_store, read_marker
from train.augment import PairedSample
from train.pixels import Jpeg

INTENSITIES = ("slidr", "normalized")


@dataclass(frozen=True)
class StorePaths:
    """Where a data set's stores are; picklable, so that workers open their own."""

    folder: Path  # `<stores>/<dataset>`
    source: str = "slic"  # superpixel source, 'slic@label'
    segments: str = "segments"  # 'segments@label'
    taxonomy: str = ""  # an alternative of the data set's manifest; '' = its default classes
    intensity: str = "slidr"  # as SLidR feeds it (raw plus an offset), or 'normalized' to 0..1

    def __post_init__(self) -> None:
        """Refuse an unknown scale of intensity."""
        if self.intensity not in INTENSITIES:
            raise unknown_name("intensity", self.intensity, INTENSITIES)

    def path(self, stage: str) -> Path:
        """Return the path of a stage's store."""
        names = {"superpixels": f"superpixels-{self.source}", "segments": self.segments}
        return self.folder / f"{names.get(stage, stage)}.zarr"


@dataclass(frozen=True)
class IntensityScale:
    """What a data set's raw intensity needs before a network takes it."""

    offset: float  # added, as SLidR feeds it
    max: float  # divides it instead, where it is normalized
    squash: str  # 'tanh' comes first on data sets with far outliers, else 'none'

    def feed(self, intensity: np.ndarray, kind: str) -> np.ndarray:
        """Return intensities [N] float32 as networks take them, from raw ones.

        Args:
            intensity: [N] float32, raw.
            kind: 'slidr' or 'normalized'.
        """
        if self.squash == "tanh":
            intensity = np.tanh(intensity)
        if kind == "normalized":
            return np.clip(intensity / self.max, 0, 1)
        return intensity + self.offset


class Stores:
    """Reads frames, pairs and segments of one data set."""

    def __init__(self, paths: StorePaths) -> None:
        self.paths = paths
        self._open: dict[str, Store] = {}

    @cached_property
    def index(self) -> Index:
        """The data set's index."""
        return read_index(self.paths.folder / "index.parquet")

    def store(self, stage: str) -> Store:
        """Return a stage's store, opened once."""
        if stage not in self._open:
            self._open[stage] = open_store(self.paths.path(stage))
        return self._open[stage]

    def left_out(self, rows: np.ndarray, stages: tuple[str, ...]) -> dict[int, str]:
        """Return the rows that a stage has quarantined, with the reason.

        Args:
            rows: [R] index rows wanted.
            stages: stage names that must hold each row.

        Raises:
            UserError: a stage or block is missing, or a block was made from another index.
        """
        found: dict[int, str] = {}
        for stage in stages:
            store = self.store(stage)
            self._check_index(store, rows)
            for row in rows.tolist():
                reason = store.missing(row)
                if reason:
                    found[row] = f"{store.path} frame {row}: {reason}; {store.remedy(reason)}"
        return found

    def holds(self, stage: str, rows: np.ndarray) -> bool:
        """Return whether a stage's store is there and has all these rows."""
        if not self.paths.path(stage).exists():
            return False
        try:
            return not self.left_out(rows, (stage,))
        except UserError:
            return False

    def has_images(self) -> np.ndarray:
        """Return which frames have an image of at least one camera [F] bool, from the index."""
        cameras = pc.list_flatten(self.index.table["cameras"])  # F x C, absent cameras null
        return np.asarray(cameras.is_valid()).reshape(len(self.index), -1).any(axis=1)

    def has_labels(self) -> np.ndarray:
        """Return which frames have labels [F] bool, from the index."""
        return np.asarray(self.index.table["label_path"].is_valid())

    def _check_index(self, store: Store, rows: np.ndarray) -> None:
        """Check that the blocks of these rows were made from this index."""
        for block in np.unique(rows // store.header.frames_per_block).tolist():
            marker, span = read_marker(store.marker_path(block)), store.block_rows(block)
            if marker is None:
                raise UserError(
                    f"{store.path}: block {block} must be done, got none; {store.remedy()}"
                )
            found = self.index.rows_hash(span.start, span.stop)
            check(
                marker["rows_hash"] == found,
                f"{store.path}: block {block} must be made from {self.paths.folder}/index.parquet, "
                f"got one of another index; {store.remedy()}",
            )

    def hashes(self, stages: tuple[str, ...]) -> dict[str, str]:
        """Return each store's config hash and its stage's version, recorded with runs and results.

        Another version of a stage gives other ids for the same config.
        """
        headers = {self.paths.path(stage).name: self.store(stage).header for stage in stages}
        return {name: f"{h.config_hash}-v{h.stage_version}" for name, h in headers.items()}

    def provenance(self, stages: tuple[str, ...]) -> dict[str, str]:
        """Return the stores' hashes and that of the classes, recorded with results."""
        return self.hashes(stages) | {"label_map": self.taxonomy["label_map_hash"]}

    def points(self, row: int) -> np.ndarray:
        """Return a frame's points [N, 4] float32: x, y, z in m, intensity as networks take it."""
        frames = self.store("frames")
        count = int(frames.read("num_points", row))
        points = frames.read("points", row, slice(0, count))
        points[:, 3] = self._feed(points[:, 3])
        return points

    def _feed(self, intensity: np.ndarray) -> np.ndarray:
        """Return intensities [N] float32 as networks take them, from the raw ones."""
        return self.intensity_scale.feed(intensity, self.paths.intensity)

    @property
    def intensity_scale(self) -> IntensityScale:
        """How the data set's intensity is scaled."""
        attributes = self.store("frames").attributes
        return IntensityScale(
            offset=float(attributes["intensity_offset"]),
            max=float(attributes["intensity_max"]),
            squash=attributes.get("intensity_squash", "none"),  # older stores have none
        )

    @cached_property
    def taxonomy(self) -> dict[str, Any]:
        """What to evaluate: `classes`, `colors`, `raw_to_train` and `label_map_hash`.

        Raises:
            UserError: the store knows no taxonomy of that name.
        """
        attributes, name = self.store("frames").attributes, self.paths.taxonomy
        known = attributes.get("taxonomies", {})
        if name and name not in known:
            raise unknown_name(f"{self.paths.folder}: taxonomy", name, known or ["(none)"])
        return known[name] if name else attributes

    def labels(self, row: int) -> np.ndarray:
        """Return a frame's train ids [N] uint8, 255 = ignored.

        Raises:
            UserError: the frame has no labels, or one outside the data set's map.
        """
        frames = self.store("frames")
        check(
            bool(frames.read("has_labels", row)),
            f"{frames.path}: frame {row} must have labels, got none; choose another split",
        )
        count = int(frames.read("num_points", row))
        raw = frames.read("labels", row, slice(0, count))
        unknown = ~self._known_labels[raw]
        check(
            not unknown.any(),
            f"{frames.path}: raw labels of frame {row} must be in the data set's map, "
            f"got {int(raw[unknown.argmax()])} at {int(unknown.sum())} "
            "points; take label files of that data set, or mend raw_to_train in its manifest",
        )
        return self.label_map[raw]

    @cached_property
    def label_map(self) -> np.ndarray:
        """The table [65536] uint8 from raw to train id, 255 = ignored."""
        table = np.full(65536, 255, np.uint8)
        for raw, train_id in self.taxonomy["raw_to_train"].items():
            table[int(raw)] = train_id
        return table

    @cached_property
    def _known_labels(self) -> np.ndarray:
        """Which raw labels the map has [65536] bool."""
        known = np.zeros(65536, bool)
        known[[int(raw) for raw in self.store("frames").attributes["raw_to_train"]]] = True
        return known

    def successor(self, row: int) -> int:
        """Return the row of a frame's successor, -1 = none; workers need no index for it."""
        return int(self.store("frames").read("successor", row))

    def segment_ids(self, row: int, which: int, count: int) -> np.ndarray:
        """Return segment ids [N] uint16 of a frame (`which` 0) or of its successor (1)."""
        return self.store("segments").read("ids", row, which, slice(0, count))

    def seen(self, row: int, count: int) -> np.ndarray:
        """Return which points of a frame [N] bool any camera sees."""
        return (self.store("projections").read("uv", row)[:, :count, 0] >= 0).any(axis=0)

    def paired_sample(self, row: int, stages: tuple[str, ...]) -> PairedSample:
        """Return frame t with its images (not decoded yet) and pairs at store size.

        Args:
            row: index row.
            stages: without 'superpixels' each image is one superpixel, 1; without 'segments' all
                points are in none, 0.
        """
        frames = self.store("frames")
        points = self.points(row)
        sizes = frames.read("image_size", row)  # [C, 2] native height, width
        uv = self.store("projections").read("uv", row)
        images, ids, pairs = [], [], []
        lengths = frames.read("jpeg_bytes", row)  # [C], 0 = no such camera
        for slot in np.flatnonzero(lengths).tolist():
            image = Jpeg(frames.read("jpeg", row, slot, slice(0, int(lengths[slot]))))
            height, width, _ = image.shape
            seen = np.flatnonzero(uv[slot, : len(points), 0] >= 0)
            col, line = uv[slot, seen].T
            number = np.full(len(seen), len(images), np.int64)
            native_height, native_width = sizes[slot].tolist()
            line = store_pixels(line, native_height, height)
            pairs.append((seen, number, line, store_pixels(col, native_width, width)))
            images.append(image)
            ids.append(
                self.store("superpixels").read("ids", row, slot)[:height, :width]
                if "superpixels" in stages
                else np.ones((height, width), np.uint16)
            )
        columns = [np.concatenate(parts) for parts in zip(*pairs, strict=True)]
        columns = columns or [np.zeros(0, np.int64)] * 4
        segment = (
            self.segment_ids(row, 0, len(points))
            if "segments" in stages
            else np.zeros(len(points), np.uint16)
        )
        return PairedSample(points, segment, tuple(images), tuple(ids), *columns)

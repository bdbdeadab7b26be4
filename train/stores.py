"""The stores of one data set, opened together and checked to belong together.

Opened in the process that reads them (a loader worker), never before a fork.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipeline.errors import UserError, check
from pipeline.geometry import store_pixels
from pipeline.image import decode_jpeg
from pipeline.index import Index, read_index
from pipeline.store import Store, open_store, read_marker
from train.augment import PairedSample


@dataclass(frozen=True)
class StorePaths:
    """Where a data set's stores are; picklable, so that workers open their own."""

    folder: Path  # `<stores>/<dataset>`
    source: str = "slic"  # superpixel source, 'slic@label'
    segments: str = "segments"  # 'segments@label'

    def path(self, stage: str) -> Path:
        """Return the path of a stage's store."""
        names = {"superpixels": f"superpixels-{self.source}", "segments": self.segments}
        return self.folder / f"{names.get(stage, stage)}.zarr"


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

    def has_images(self) -> np.ndarray:
        """Return which frames have an image of at least one camera [F] bool, from the index."""
        cameras = pc.list_flatten(self.index.table["cameras"])  # F x C, absent cameras null
        return np.asarray(cameras.is_valid()).reshape(len(self.index), -1).any(axis=1)

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
        """Return each store's config hash, recorded with runs and results."""
        return {
            self.paths.path(stage).name: self.store(stage).header.config_hash for stage in stages
        }

    def points(self, row: int) -> np.ndarray:
        """Return a frame's points [N, 4] float32: x, y, z in m, intensity as networks take it."""
        frames = self.store("frames")
        count = int(frames.read("num_points", row))
        points = frames.read("points", row, slice(0, count))
        points[:, 3] += frames.attributes["intensity_offset"]
        return points

    def labels(self, row: int) -> np.ndarray:
        """Return a frame's train ids [N] uint8, 255 = ignored.

        Raises:
            UserError: the frame has no labels.
        """
        frames = self.store("frames")
        check(
            bool(frames.read("has_labels", row)),
            f"{frames.path}: frame {row} must have labels, got none; choose another split",
        )
        count = int(frames.read("num_points", row))
        return self.label_map[frames.read("labels", row, slice(0, count))]

    @cached_property
    def label_map(self) -> np.ndarray:
        """The table [65536] uint8 from raw to train id, 255 = ignored."""
        table = np.full(65536, 255, np.uint8)
        for raw, train_id in self.store("frames").attributes["raw_to_train"].items():
            table[int(raw)] = train_id
        return table

    def segment_ids(self, row: int, which: int, count: int) -> np.ndarray:
        """Return segment ids [N] uint16 of a frame (`which` 0) or of its successor (1)."""
        return self.store("segments").read("ids", row, which, slice(0, count))

    def paired_sample(self, row: int, with_segments: bool) -> PairedSample:
        """Return frame t with its images, superpixels and point-pixel pairs at store size."""
        frames, superpixels = self.store("frames"), self.store("superpixels")
        points = self.points(row)
        sizes = frames.read("image_size", row)  # [C, 2] native height, width
        uv = self.store("projections").read("uv", row)
        images, ids, pairs = [], [], []
        lengths = frames.read("jpeg_bytes", row)  # [C], 0 = no such camera
        for slot in np.flatnonzero(lengths).tolist():
            image = decode_jpeg(frames.read("jpeg", row, slot, slice(0, int(lengths[slot]))))
            height, width = image.shape[:2]
            seen = np.flatnonzero(uv[slot, : len(points), 0] >= 0)
            col = store_pixels(uv[slot, seen, 0], int(sizes[slot, 1]), width)
            line = store_pixels(uv[slot, seen, 1], int(sizes[slot, 0]), height)
            number = np.full(len(seen), len(images), np.int64)
            pairs.append(np.stack([seen, number, line, col]))
            images.append(image)
            ids.append(superpixels.read("ids", row, slot)[:height, :width])
        columns = np.concatenate(pairs, axis=1) if pairs else np.zeros((4, 0), np.int64)
        segment = (
            self.segment_ids(row, 0, len(points))
            if with_segments
            else np.zeros(len(points), np.uint16)
        )
        return PairedSample(points, segment, tuple(images), tuple(ids), *columns)

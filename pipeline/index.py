"""The frame index: one row per LiDAR keyframe of a whole data set, in index.parquet.

In: a data set's own tables, through its reader. Out: everything stage one must know before it opens
a recording. Append-only: stores address frames by row, so a grown data set keeps its old rows.
"""

import gc
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.datasets.table import load_reader
from pipeline.errors import UserError, check, unknown_name
from pipeline.files import sha256, write_atomically
from pipeline.geometry import store_size
from pipeline.index_check import find_problems
from pipeline.index_table import INDEX_VERSION, SCHEMA, camera_names, to_frame, to_table
from pipeline.manifest import load_manifest, resolve_version
from pipeline.sample_check import find_sample_problems, spread
from pipeline.schema import Capacity
from pipeline.splits import split_names
from pipeline.types import Frame

_KEY = b"selkie"


@dataclass(frozen=True, eq=False)
class Index:
    """A data set's keyframes as columns; a frame object is made only when asked for."""

    dataset: str
    version: str | None
    cameras: tuple[str, ...]  # names by slot
    splits: tuple[str, ...]  # names by bit
    manifest_hash: str
    table: pa.Table  # index_table.SCHEMA

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def successor(self) -> np.ndarray:
        """Row of each frame's successor [F] int64, -1 = none."""
        return self.table["successor"].to_numpy()

    @cached_property
    def frame_ids(self) -> list[str]:
        """Frame ids by row."""
        return self.table["frame_id"].to_pylist()

    @cached_property
    def scene_numbers(self) -> np.ndarray:
        """Position of each frame's scene in `scenes()` [F] int64."""
        return self._scene_codes.indices.to_numpy().astype(np.int64)

    @cached_property
    def _scene_codes(self) -> pa.DictionaryArray:
        return self.table["scene"].combine_chunks().dictionary_encode()  # by first appearance

    @cached_property
    def store_scale(self) -> float:
        """Store size over native size of the images, one for the whole data set."""
        return load_manifest(self.dataset).scale_for(*self._image_size)

    @cached_property
    def has_pairs(self) -> bool:
        """Whether the data set pairs frames at all: it has poses, and its manifest a pair gap."""
        has_poses = self.table["T_world_lidar"].null_count < len(self)
        return has_poses and load_manifest(self.dataset).pair_gap > 0

    @cached_property
    def has_instances(self) -> bool:
        """Whether any frame has instance ids."""
        return self.table["instance_path"].null_count < len(self)

    @cached_property
    def _image_size(self) -> tuple[int, int]:
        cameras = pc.list_flatten(self.table["cameras"])
        sides = [
            pc.max(pc.struct_field(cameras, name)).as_py() or 0 for name in ("height", "width")
        ]
        return sides[0], sides[1]

    def frame(self, row: int) -> Frame:
        """Return the frame of a row.

        Raises:
            IndexError: no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row must be in 0..{len(self) - 1}, got {row}")
        after = self.successor[row]
        successor_id = self.table["frame_id"][int(after)].as_py() if after >= 0 else None
        return to_frame(self.table.slice(row, 1).to_pylist()[0], successor_id, self.splits)

    def scenes(self) -> list[str]:
        """Return the scene names, in the order of their first rows."""
        return self._scene_codes.dictionary.to_pylist()

    def scene_number(self, row: int) -> int:
        """Return the position of a row's scene in `scenes()`."""
        return int(self.scene_numbers[row])

    def split_mask(self, name: str) -> np.ndarray:
        """Return which rows belong to a split [F] bool; may be empty on small data sets.

        Raises:
            UserError: unknown split (lists the valid ones).
        """
        if name not in self.splits:
            raise unknown_name(f"{self.dataset} index: split", name, self.splits)
        return (self.table["splits"].to_numpy() >> self.splits.index(name) & 1).astype(bool)

    def rows_hash(self, start: int, stop: int) -> str:
        """Return the SHA-256 of all that the stages read of rows start .. stop - 1.

        It covers the rows' content, scan and pose of each successor, and the numbers that stores
        hold (row of the successor, scene). Splits are not in it: they shift as a data set grows.
        """
        content = self.table["content"].slice(start, stop - start).to_pylist()
        numbers = np.stack([self.successor[start:stop], self.scene_numbers[start:stop]])
        return sha256(b"".join(content) + numbers.astype("<i8").tobytes())

    def capacity(self) -> Capacity:
        """Return the largest sizes over all rows; image sizes are 0 where there are no cameras."""
        height, width = self._image_size
        store_height, store_width = store_size(height, width, self.store_scale)
        return Capacity(
            num_frames=len(self),
            num_cameras=len(self.cameras),
            num_points=pc.max(self.table["max_points"]).as_py() or 0,
            height=height,
            width=width,
            store_height=store_height,
            store_width=store_width,
        )


def build_index(dataset: str, root: Path, version: str | None = None) -> Index:
    """Return the index of a data set, read from its own tables.

    Raises:
        UserError: unknown data set, or recordings that are missing, broken or empty.
    """
    manifest = load_manifest(dataset)
    version = resolve_version(manifest, root, version)
    splits = split_names(manifest)
    gc.disable()  # frames are many objects and no cycles
    try:
        found = load_reader(dataset).index(root, manifest, version)
        table = found if isinstance(found, pa.Table) else to_table(found, splits)
    finally:
        gc.enable()
    check(len(table) > 0, f"{root}: must hold at least one keyframe of '{dataset}', got none")
    names = camera_names(table, manifest.cameras)
    return Index(dataset, version, names, splits, manifest.content_hash(), table)


def update_index(old: Index, new: Index) -> Index:
    """Return the new index with every frame of the old one at its old row, new frames at the end.

    Raises:
        UserError: a frame of the old index is gone, or the two are of other data sets or cameras.
    """
    advice = "keep the old files, or start a fresh stores folder (STORES=...)"
    for what in ("dataset", "version", "cameras"):
        was, now = getattr(old, what), getattr(new, what)
        check(was == now, f"index: {what} must stay {was}, got {now}; {advice}")
    row_of = {frame_id: row for row, frame_id in enumerate(new.frame_ids)}
    for frame_id in old.frame_ids:
        check(
            frame_id in row_of,
            f"index: frame '{frame_id}' must still be in '{new.dataset}', got {len(new)} frames "
            f"without it; {advice}",
        )
    known = set(old.frame_ids)
    order = [row_of[i] for i in old.frame_ids] + [
        row_of[i] for i in new.frame_ids if i not in known
    ]
    place = np.empty(len(order) + 1, np.int64)
    place[order] = np.arange(len(order))
    place[-1] = -1  # where successor -1 looks
    table = new.table.take(pa.array(order))
    at = SCHEMA.get_field_index("successor")
    table = table.set_column(at, SCHEMA.field(at), pa.array(place[table["successor"].to_numpy()]))
    return Index(new.dataset, new.version, new.cameras, new.splits, new.manifest_hash, table)


def validate(index: Index, root: Path) -> list[str]:
    """Return one line per problem: missing files, time running backwards, odd cameras, labels.

    Scans and labels of a few frames, spread over the data set, are opened.
    """
    frames = find_problems(map(index.frame, range(len(index))), root)
    labeled = np.flatnonzero(index.table["label_path"].is_valid())
    rows = labeled if len(labeled) else np.arange(len(index))
    sample = [index.frame(int(row)) for row in spread(rows)]
    return frames + find_sample_problems(sample, root, load_manifest(index.dataset))


def write_index(path: Path, index: Index) -> None:
    """Write the index as Parquet, whole or not at all."""
    names = ("dataset", "version", "cameras", "splits", "manifest_hash")
    header = {name: getattr(index, name) for name in names} | {"index_version": INDEX_VERSION}
    table = index.table.replace_schema_metadata({_KEY: orjson.dumps(header)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=max(len(table), 1))
    write_atomically(path, buffer.getvalue())


def read_index(path: Path) -> Index:
    """Return the index of a Parquet file.

    Raises:
        UserError: missing, broken, or of another version of this layout.
    """
    again = "rebuild it with 'python -m pipeline index'"
    check(
        path.is_file(),
        f"{path}: index must be there, not found; build it with 'python -m pipeline index'",
    )
    try:
        table = pq.read_table(path, pre_buffer=False)
        pa.default_memory_pool().release_unused()  # decoding scratch: 190 of 415 MiB on nuScenes
        header = orjson.loads((table.schema.metadata or {})[_KEY])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: index must be Parquet as we write it, got {type(error).__name__}: "
            f"{str(error).splitlines()[0][:120]}; {again}"
        ) from None
    version = header.pop("index_version", None)
    check(
        version == INDEX_VERSION and table.schema.equals(SCHEMA),
        f"{path}: index must have layout {INDEX_VERSION}, got {version}; {again}",
    )
    header |= {name: tuple(header[name]) for name in ("cameras", "splits")}
    return Index(table=table, **header)


def find_folder(stores: Path, dataset: str, version: str | None = None) -> Path:
    """Return the folder of a data set's stores, `<stores>/<dataset>[-<version>]`.

    Raises:
        UserError: there is none, or several and no version to choose by.
    """
    exact = stores / (f"{dataset}-{version}" if version else dataset)
    if (exact / "index.parquet").exists():
        return exact
    found = sorted(p.parent for p in stores.glob(f"{dataset}-*/index.parquet"))
    if version is None and len(found) == 1:
        return found[0]
    names = ", ".join(p.name for p in found) or "nothing"
    raise UserError(
        f"{exact}: stores of '{dataset}' must be there, got {names}; "
        f"run 'make superpixels DATASET={dataset}'"
        + (", or choose one with VERSION=" if len(found) > 1 else "")
    )

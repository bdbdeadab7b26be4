"""Frames to Arrow columns and back: the layout of index.parquet.

In: a list of frames, or columns. Out: one table, a row per keyframe, matrices as fixed-size lists.
Columns are built from flat arrays: a Python float per matrix entry would take 1 GB on nuScenes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.types import Camera, Frame, Sweep

INDEX_VERSION = 2


def _matrix_type(size: int) -> pa.DataType:
    return pa.list_(pa.float64(), size)


SWEEP = pa.struct([("path", pa.string()), ("T_lidar_sweep", _matrix_type(16))])
CAMERA = pa.struct(
    [
        ("name", pa.string()),
        ("token", pa.string()),
        ("path", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("K", _matrix_type(9)),
        ("T_cam_lidar", _matrix_type(16)),
        ("t_ns", pa.int64()),
        ("distortion", pa.list_(pa.float64())),
    ]
)
SCHEMA = pa.schema(
    [
        ("frame_id", pa.string()),
        ("scene", pa.string()),
        ("position", pa.int32()),
        ("splits", pa.int64()),  # bit k = k-th name of the metadata's `splits`
        ("t_ns", pa.int64()),
        ("points_path", pa.string()),
        ("max_points", pa.int64()),
        ("lidar_token", pa.string()),
        ("T_world_lidar", _matrix_type(16)),
        ("successor", pa.int64()),  # row number, -1 = none
        ("sweeps", pa.list_(SWEEP)),
        ("label_path", pa.string()),
        ("instance_path", pa.string()),
        ("cameras", pa.list_(CAMERA)),
        ("content", pa.binary(32)),  # sha256 of what the stages read of this row
    ]
)


def to_table(frames: Sequence[Frame], splits: Sequence[str]) -> pa.Table:
    """Return the table of frames, row k for frame k.

    Args:
        frames: in row order; each successor_id must be among them.
        splits: every split name, in bit order.
    """
    row_of = {frame.frame_id: row for row, frame in enumerate(frames)}
    sweeps = [sweep for frame in frames for sweep in frame.sweeps]
    cameras = [camera for frame in frames for camera in frame.cameras]
    plain = ("frame_id", "scene", "position", "t_ns", "points_path", "max_points", "lidar_token")
    columns = {name: [getattr(frame, name) for frame in frames] for name in plain}
    columns |= {
        "splits": split_bits([frame.splits for frame in frames], splits),
        "T_world_lidar": _given_matrices([frame.T_world_lidar for frame in frames], 16),
        "successor": [row_of[f.successor_id] if f.successor_id else -1 for f in frames],
        "sweeps": lists([len(frame.sweeps) for frame in frames], _sweep_structs(sweeps)),
        "label_path": [frame.label_path for frame in frames],
        "instance_path": [frame.instance_path for frame in frames],
        "cameras": lists([len(frame.cameras) for frame in frames], _camera_structs(cameras)),
    }
    return table_of(columns)


def table_of(columns: dict[str, Any]) -> pa.Table:
    """Return the table of these columns, all of SCHEMA's but `content`, which is added.

    Without a camera in any frame there are no slots either.
    """
    from pipeline.index_content import contents  # numba's 70 MB, which reading an index can spare

    cameras = columns["cameras"]
    if cameras.values.null_count == len(cameras.values):
        columns = columns | {"cameras": lists(np.zeros(len(cameras), int), cameras.values[:0])}
    schema = pa.schema([field for field in SCHEMA if field.name != "content"])
    table = pa.Table.from_arrays(_arrays(schema, columns), schema=schema)
    return table.append_column(SCHEMA.field("content"), contents(table))


def split_bits(names: Sequence[Sequence[str]], splits: Sequence[str]) -> list[int]:
    """Return the number of each frame whose bit k says whether it is in the k-th of `splits`."""
    bit = {name: 1 << k for k, name in enumerate(splits)}
    return [sum(bit[name] for name in own) for own in names]


def matrices(values: np.ndarray, absent: np.ndarray | None = None) -> pa.Array:
    """Return the column of matrices [n, rows, columns] float64, null where `absent` [n] says so."""
    flat, size = pa.array(np.ascontiguousarray(values).reshape(-1)), int(np.prod(values.shape[1:]))
    mask = pa.array(absent) if absent is not None and absent.any() else None
    return pa.FixedSizeListArray.from_arrays(flat, size, mask=mask)


def lists(lengths: Sequence[int] | np.ndarray, values: pa.Array) -> pa.Array:
    """Return the column whose rows are the next `lengths` [n] of `values`."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def structs(kind: pa.StructType, columns: dict[str, Any], absent: np.ndarray) -> pa.Array:
    """Return the column of structs with these fields, null where `absent` [n] says so."""
    mask = pa.array(absent) if absent.any() else None
    return pa.StructArray.from_arrays(_arrays(kind, columns), fields=list(kind), mask=mask)


def camera_names(table: pa.Table, otherwise: Sequence[str]) -> tuple[str, ...]:
    """Return the name of each camera slot, from `otherwise` where no frame has that camera."""
    cameras = table["cameras"].combine_chunks()
    names = pc.struct_field(cameras.values, "name")
    slots = len(names) // max(len(table), 1)
    found = []
    for slot in range(slots):
        first = pc.drop_null(names.take(pa.array(range(slot, len(names), slots)))).slice(0, 1)
        found.append(first[0].as_py() if len(first) else otherwise[slot])
    return tuple(found)


def to_frames(table: pa.Table, splits: Sequence[str]) -> list[Frame]:
    """Return the frames of all rows."""
    ids = table["frame_id"].to_pylist()
    rows = table.to_pylist()
    after = (ids[row["successor"]] if row["successor"] >= 0 else None for row in rows)
    return [to_frame(row, frame_id, splits) for row, frame_id in zip(rows, after, strict=True)]


def to_frame(row: dict[str, Any], successor_id: str | None, splits: Sequence[str]) -> Frame:
    """Return the frame of one row as `to_pylist` gives it."""
    cameras = [_to_camera(camera) if camera else None for camera in row["cameras"]]
    return Frame(
        frame_id=row["frame_id"],
        scene=row["scene"],
        position=row["position"],
        splits=tuple(name for k, name in enumerate(splits) if row["splits"] >> k & 1),
        t_ns=row["t_ns"],
        points_path=row["points_path"],
        max_points=row["max_points"],
        lidar_token=row["lidar_token"],
        T_world_lidar=None if row["T_world_lidar"] is None else _square(row["T_world_lidar"], 4),
        successor_id=successor_id,
        sweeps=tuple(Sweep(s["path"], _square(s["T_lidar_sweep"], 4)) for s in row["sweeps"]),
        label_path=row["label_path"],
        instance_path=row["instance_path"],
        cameras=tuple(cameras),
    )


def _to_camera(camera: dict[str, Any]) -> Camera:
    K, T_cam_lidar = _square(camera["K"], 3), _square(camera["T_cam_lidar"], 4)
    rest = {"K": K, "T_cam_lidar": T_cam_lidar, "distortion": tuple(camera["distortion"])}
    return Camera(**camera | rest)


def _square(values: list[float], side: int) -> np.ndarray:
    return np.array(values, np.float64).reshape(side, side)


def _arrays(fields: Iterable[pa.Field], columns: dict[str, Any]) -> list[pa.Array]:
    found = [(columns[field.name], field.type) for field in fields]
    return [one if isinstance(one, pa.Array) else pa.array(one, kind) for one, kind in found]


def _given_matrices(values: Sequence[np.ndarray | None], size: int) -> pa.Array:
    empty = np.zeros(size)
    flat = [empty if value is None else np.ravel(value) for value in values]
    absent = np.array([value is None for value in values], bool)
    return matrices(np.array(flat, np.float64).reshape(-1, size), absent)


def _sweep_structs(sweeps: Sequence[Sweep]) -> pa.Array:
    columns = {
        "path": [sweep.path for sweep in sweeps],
        "T_lidar_sweep": _given_matrices([sweep.T_lidar_sweep for sweep in sweeps], 16),
    }
    return structs(SWEEP, columns, np.zeros(len(sweeps), bool))


def _camera_structs(cameras: Sequence[Camera | None]) -> pa.Array:
    names = [field.name for field in CAMERA]
    columns: dict[str, Any] = {
        name: [None if camera is None else getattr(camera, name) for camera in cameras]
        for name in names
    }
    columns["K"] = _given_matrices(columns["K"], 9)
    columns["T_cam_lidar"] = _given_matrices(columns["T_cam_lidar"], 16)
    return structs(CAMERA, columns, np.array([camera is None for camera in cameras], bool))

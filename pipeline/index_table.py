"""Frames to Arrow columns and back: the layout of index.parquet.

In: a list of frames. Out: one table, a row per keyframe, matrices as fixed-size float64 lists.
Columns are built from flat arrays: a Python float per matrix entry would take 1 GB on nuScenes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipeline.files import sha256
from pipeline.types import Camera, Frame, Sweep

INDEX_VERSION = 1


def _matrix_type(size: int) -> pa.DataType:
    return pa.list_(pa.float64(), size)


_SWEEP = pa.struct([("path", pa.string()), ("T_lidar_sweep", _matrix_type(16))])
_CAMERA = pa.struct(
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
        ("sweeps", pa.list_(_SWEEP)),
        ("label_path", pa.string()),
        ("instance_path", pa.string()),
        ("cameras", pa.list_(_CAMERA)),
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
    bit = {name: 1 << k for k, name in enumerate(splits)}
    sweeps = [sweep for frame in frames for sweep in frame.sweeps]
    cameras = [camera for frame in frames for camera in frame.cameras]
    successor = [row_of[f.successor_id] if f.successor_id else -1 for f in frames]
    following = [frames[row] if row >= 0 else None for row in successor]
    plain = ("frame_id", "scene", "position", "t_ns", "points_path", "max_points", "lidar_token")
    columns = {name: [getattr(frame, name) for frame in frames] for name in plain}
    columns |= {
        "splits": [sum(bit[name] for name in frame.splits) for frame in frames],
        "T_world_lidar": _matrices([frame.T_world_lidar for frame in frames], 16),
        "successor": successor,
        "sweeps": _lists([len(frame.sweeps) for frame in frames], _sweep_structs(sweeps)),
        "label_path": [frame.label_path for frame in frames],
        "instance_path": [frame.instance_path for frame in frames],
        "cameras": _lists([len(frame.cameras) for frame in frames], _camera_structs(cameras)),
        "content": [_content(f, s) for f, s in zip(frames, following, strict=True)],
    }
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, field.type)
        for field in SCHEMA
        for values in [columns[field.name]]
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


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


def _content(frame: Frame, successor: Frame | None) -> bytes:
    """Hash of all that a stage reads: the row, and scan and pose of its successor; splits apart."""
    after = (
        [successor.frame_id, successor.points_path, successor.T_world_lidar] if successor else None
    )
    plain = [getattr(frame, name) for name in frame.__dataclass_fields__ if name != "splits"]
    option = orjson.OPT_SERIALIZE_NUMPY
    return bytes.fromhex(sha256(orjson.dumps([plain, after], option=option)))


def _matrices(values: Sequence[np.ndarray | None], size: int) -> pa.Array:
    empty = np.zeros(size)
    flat = np.array([empty if v is None else np.ravel(v) for v in values], np.float64).reshape(-1)
    absent = np.array([v is None for v in values], bool)
    mask = pa.array(absent) if absent.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), size, mask=mask)


def _lists(lengths: Sequence[int], values: pa.Array) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _structs(kind: pa.StructType, columns: dict[str, Any], absent: np.ndarray) -> pa.Array:
    arrays = [
        columns[field.name]
        if isinstance(columns[field.name], pa.Array)
        else pa.array(columns[field.name], field.type)
        for field in kind
    ]
    mask = pa.array(absent) if absent.any() else None
    return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=mask)


def _sweep_structs(sweeps: Sequence[Sweep]) -> pa.Array:
    columns = {
        "path": [sweep.path for sweep in sweeps],
        "T_lidar_sweep": _matrices([sweep.T_lidar_sweep for sweep in sweeps], 16),
    }
    return _structs(_SWEEP, columns, np.zeros(len(sweeps), bool))


def _camera_structs(cameras: Sequence[Camera | None]) -> pa.Array:
    names = [field.name for field in _CAMERA]
    columns: dict[str, Any] = {
        name: [None if camera is None else getattr(camera, name) for camera in cameras]
        for name in names
    }
    columns["K"] = _matrices(columns["K"], 9)
    columns["T_cam_lidar"] = _matrices(columns["T_cam_lidar"], 16)
    return _structs(_CAMERA, columns, np.array([camera is None for camera in cameras], bool))

"""Waymo's Parquet components: `<split>/<component>/<segment>.parquet`, a row per frame and sensor.

In: a file, the columns wanted and the keys of the rows. Out: rows as plain values and flat arrays
with their shapes. Rows are picked by Parquet's own statistics: a frame reads its row groups only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError, check

TIME = "key.frame_timestamp_micros"
LASER = "key.laser_name"
CAMERA = "key.camera_name"
CAMERAS = {"FRONT": 1, "FRONT_LEFT": 2, "FRONT_RIGHT": 3, "SIDE_LEFT": 4, "SIDE_RIGHT": 5}
CLASS = {
    "lidar": "LiDARComponent",
    "lidar_segmentation": "LiDARSegmentationLabelComponent",
    "lidar_pose": "LiDARPoseComponent",
    "lidar_camera_projection": "LiDARCameraProjectionComponent",
    "lidar_calibration": "LiDARCalibrationComponent",
    "vehicle_pose": "VehiclePoseComponent",
    "camera_image": "CameraImageComponent",
    "camera_calibration": "CameraCalibrationComponent",
}
KEYS = {  # what tells the rows of a component apart, beside the segment
    "lidar": (TIME, LASER),
    "lidar_segmentation": (TIME, LASER),
    "lidar_pose": (TIME, LASER),
    "lidar_camera_projection": (TIME, LASER),
    "lidar_calibration": (LASER,),
    "vehicle_pose": (TIME,),
    "camera_image": (TIME, CAMERA),
    "camera_calibration": (CAMERA,),
}
_PATH = b"path"  # a table carries the path of its file, for messages
# Range images of LiDARs without them, and inclinations that are even, are null.
_MAY_BE_NULL = ("values", "shape", "min", "max")


@dataclass(frozen=True)
class Segment:
    """One 20 s recording: where its components lie."""

    split: str  # folder: training, validation, testing
    name: str

    def path(self, component: str) -> str:
        """Return the path of a component's file relative to the root."""
        return f"{self.split}/{component}/{self.name}.parquet"


def record_path(file: str, *parts: object) -> str:
    """Return the path of a record in a file, as in 'training/lidar/a.parquet#1550/top'."""
    return f"{file}#{'/'.join(map(str, parts))}"


def split_record(path: str) -> tuple[Segment, list[str]]:
    """Return the segment and the parts of a record's path."""
    file, _, record = path.partition("#")
    split, _, name = file.split("/")
    return Segment(split, name.removesuffix(".parquet")), record.split("/")


def read_rows(
    root: Path, segment: Segment, component: str, values: tuple[str, ...], **keys: int
) -> pa.Table:
    """Return rows of a component: its key columns and the wanted value columns.

    Args:
        root: of the data set.
        segment: which recording.
        component: its folder.
        values: value columns without their class, as in 'range_image_return1.values'.
        **keys: `time`, `laser`, `camera`: rows to keep; none = all.

    Returns:
        Table with columns `key.*` as in the file, and the values under the names given.

    Raises:
        UserError: the file is missing or damaged, lacks a column, or a value of a row.
    """
    path = root / segment.path(component)
    full = {f"[{CLASS[component]}].{name}": name for name in values}
    names = {"time": TIME, "laser": LASER, "camera": CAMERA}
    filters = [(names[key], "==", value) for key, value in keys.items()] or None
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
        lacking = [name for name in (*KEYS[component], *full) if name not in there]
        check(
            not lacking,
            f"{path}: component '{component}' must have the columns {', '.join(lacking)}, got none "
            "of them; is this version 2 of the data set?",
        )
        wanted = [name for name in there if name in full or name in names.values()]
        table = pq.read_table(path, columns=wanted, filters=filters)
    except FileNotFoundError:
        raise UserError(
            f"{path}: component '{component}' must be there, not found; download {component} of "
            "this segment"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: component '{component}' must be a whole Parquet file, got "
            f"{type(error).__name__}: {str(error).splitlines()[0][:100]}; download it again"
        ) from None
    table = table.rename_columns([full.get(name, name) for name in table.column_names])
    for name in table.column_names:
        num_null = table[name].null_count
        check(
            num_null == 0 or name.rpartition(".")[2] in _MAY_BE_NULL,
            f"{path}: component '{component}' must have {name} in every row, got {num_null} of "
            f"{len(table)} null; download it again",
        )
    return table.replace_schema_metadata({_PATH: str(path)})


def array_of(table: pa.Table, name: str, row: int) -> np.ndarray | None:
    """Return the array of a row: column `name.values` in the shape of `name.shape`; None = null.

    Raises:
        UserError: the shape does not fit the values.
    """
    values, shape = table[f"{name}.values"][row], table[f"{name}.shape"][row]
    if not values.is_valid or not shape.is_valid:
        return None
    flat = values.values.to_numpy(zero_copy_only=False)
    dims = shape.as_py()
    check(
        len(flat) == int(np.prod(dims)),
        f"{path_of(table)}: {name}.values must fill the shape {dims}, got {len(flat)}; "
        "download the file again",
    )
    return flat.reshape(dims)


def matrix_of(table: pa.Table, name: str, row: int) -> np.ndarray:
    """Return a transform [4, 4] float64 of a row.

    Raises:
        UserError: not 16 numbers.
    """
    values: Any = table[name][row].as_py()
    check(
        len(values) == 16,
        f"{path_of(table)}: {name} must be 16 numbers, got {len(values)}; download the file again",
    )
    return np.array(values, np.float64).reshape(4, 4)


def path_of(table: pa.Table) -> str:
    """Return the path of the file that read_rows made the table from."""
    return (table.schema.metadata or {}).get(_PATH, b"table").decode()

"""The store contract: which arrays each stage writes, their shapes, types and chunks.

Capacities: F frames, C cameras, N points of the largest scan, H W native and h w store image size,
the largest in the index. Id 0 means none everywhere.
"""

from dataclasses import dataclass

SCHEMA_VERSION = 1
NO_RING = 255
NOT_SEEN = -1


@dataclass(frozen=True)
class Capacity:
    """Largest sizes over the whole index; they fix the array shapes."""

    num_frames: int
    num_cameras: int
    num_points: int
    height: int  # native
    width: int
    store_height: int
    store_width: int


@dataclass(frozen=True)
class ArraySpec:
    """One array with frames along axis 0; `chunk` and `frame_shape` leave that axis out."""

    name: str
    frame_shape: tuple[int, ...]
    chunk: tuple[int, ...]  # one frame's chunk
    dtype: str
    fill: int | float  # what padding, absent cameras and quarantined frames hold


def frames_arrays(size: Capacity, has_instances: bool) -> list[ArraySpec]:
    """Return the arrays of frames.zarr."""
    num_points, cameras = size.num_points, size.num_cameras
    jpeg = size.store_height * size.store_width
    arrays = [
        ArraySpec("points", (num_points, 4), (num_points, 4), "float32", 0),
        ArraySpec("num_points", (), (), "int32", 0),
        ArraySpec("ring", (num_points,), (num_points,), "uint8", NO_RING),
        ArraySpec("labels", (num_points,), (num_points,), "uint16", 0),
        ArraySpec("has_labels", (), (), "bool", 0),
        ArraySpec("scene", (), (), "int32", -1),  # position in the attribute `scenes`
        ArraySpec("successor", (), (), "int64", -1),
        ArraySpec("t_ns", (), (), "int64", 0),
        ArraySpec("T_world_lidar", (4, 4), (4, 4), "float64", float("nan")),  # NaN = no poses
    ]
    if cameras:
        arrays += [
            ArraySpec("jpeg", (cameras, jpeg), (1, jpeg), "uint8", 0),
            ArraySpec("jpeg_bytes", (cameras,), (cameras,), "int32", 0),
            ArraySpec("image_size", (cameras, 2), (cameras, 2), "int32", 0),  # native height, width
        ]
    if has_instances:
        arrays.append(ArraySpec("instances", (num_points,), (num_points,), "uint16", 0))
    return arrays


def superpixels_arrays(size: Capacity, max_categories: int) -> list[ArraySpec]:
    """Return the arrays of superpixels-<source>.zarr; 0 categories = the source knows none."""
    cameras = size.num_cameras
    store, native = (size.store_height, size.store_width), (size.height, size.width)
    arrays = [
        ArraySpec("ids", (cameras, *store), (1, *store), "uint16", 0),
        ArraySpec("ids_native", (cameras, *native), (1, *native), "uint16", 0),
        ArraySpec("num_segments", (cameras,), (cameras,), "int32", 0),
    ]
    if max_categories:
        shape = (cameras, max_categories + 1)
        arrays.append(ArraySpec("category", shape, shape, "int16", -1))
    return arrays


def projections_arrays(size: Capacity) -> list[ArraySpec]:
    """Return the arrays of projections.zarr."""
    cameras, num_points = size.num_cameras, size.num_points
    return [ArraySpec("uv", (cameras, num_points, 2), (1, num_points, 2), "int16", NOT_SEEN)]


def segments_arrays(size: Capacity) -> list[ArraySpec]:
    """Return the arrays of segments.zarr: row 0 frame t, row 1 its successor."""
    return [ArraySpec("ids", (2, size.num_points), (2, size.num_points), "uint16", 0)]

"""Reader of the Waymo Open Dataset, version 2 (Parquet): frames, points, labels, images, pixels.

The LiDAR frame is the vehicle frame at the frame's pose, where all LiDARs meet. Versions say which
LiDARs and returns: `top`, `top-both`, `all`, `all-both`; the record part of a path repeats it, so
that a path alone tells what to read. No TensorFlow.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.waymo.components import (
    CAMERAS,
    LASER,
    Segment,
    array_of,
    matrix_of,
    read_rows,
    split_record,
)
from pipeline.datasets.waymo.range_image import LidarMount, points_of_image
from pipeline.datasets.waymo.segments import index as index
from pipeline.errors import check
from pipeline.formats import check_count, check_finite
from pipeline.image import decode_jpeg
from pipeline.schema import NO_RING, NOT_SEEN
from pipeline.types import Camera, Frame, Labels, PointCloud

TOP = 1
RETURNS = ("range_image_return1", "range_image_return2")


@dataclass(frozen=True)
class _Image:
    """One LiDAR's range image of one return."""

    laser: int
    which: str  # of RETURNS
    values: np.ndarray  # [H, W, 4] float32: range m, intensity, elongation, no-label zone

    @property
    def mask(self) -> np.ndarray:
        """Pixels with a return [H, W] bool; row by row they are the points."""
        return self.values[..., 0] > 0


def load_points(root: Path, path: str) -> PointCloud:
    """Return a frame's points in the vehicle frame; raw intensity; ring = row of TOP, else 255.

    Order: LiDARs by number with their first returns, then the same with their second returns.

    Raises:
        UserError: a component is missing or damaged, or has no return at all.
    """
    segment, (time, _) = split_record(path)
    mounts = _mounts(root, segment)
    table = read_rows(
        root, segment, "vehicle_pose", ("world_from_vehicle.transform",), time=int(time)
    )
    where = f"{root / path}"
    check(len(table) == 1, f"{where}: vehicle_pose must have this frame once, got {len(table)}")
    T_world_vehicle = matrix_of(table, "world_from_vehicle.transform", 0)
    points, rings = [], []
    for image in _range_images(root, path):
        poses = None
        if image.laser == TOP:
            poses = _pixel_poses(root, segment, int(time), image.mask.shape)
        mount = _mount(mounts, image, root / segment.path("lidar_calibration"))
        xyz = points_of_image(image.values[..., 0], mount, poses, T_world_vehicle)
        rows = np.nonzero(image.mask)[0]
        points.append(np.column_stack([xyz, image.values[..., 1][image.mask]]).astype(np.float32))
        rings.append(rows if image.laser == TOP else np.full(len(rows), NO_RING))
    cloud = PointCloud(np.concatenate(points), np.concatenate(rings).astype(np.uint8))
    check(len(cloud.points) > 0, f"{where}: must have a return, got none; download it again")
    check_finite(root / path, cloud.points)
    return cloud


def load_labels(root: Path, frame: Frame, num_points: int) -> Labels | None:
    """Return classes and instances of a frame; 0 for LiDARs other than TOP; None without labels.

    Raises:
        UserError: the component is missing or damaged, or its image has another size.
    """
    if frame.label_path is None:
        return None
    segment, (time, version) = split_record(frame.label_path)
    columns = _array_columns(version)
    table = read_rows(root, segment, "lidar_segmentation", columns, time=int(time), laser=TOP)
    found = []
    for image in _range_images(root, frame.points_path):
        labels = None
        if image.laser == TOP and len(table):
            labels = array_of(table, image.which, 0)
        if labels is None:
            labels = np.zeros((*image.mask.shape, 2), np.int32)
        check(
            labels.shape == (*image.mask.shape, 2),
            f"{root / frame.label_path}: labels must be {[*image.mask.shape, 2]}, got "
            f"{list(labels.shape)}; download lidar and lidar_segmentation of one release",
        )
        found.append(labels[image.mask])
    instance, semantic = np.concatenate(found).astype(np.uint16).T
    check_count(root / frame.label_path, len(semantic), num_points)
    return Labels(semantic, instance)


def load_image(root: Path, camera: Camera) -> np.ndarray:
    """Return the image of a camera [H, W, 3] uint8 RGB.

    Raises:
        UserError: missing, broken, or of another size than the index says.
    """
    segment, (time, number) = split_record(camera.path)
    keys = {"time": int(time), "camera": int(number)}
    table = read_rows(root, segment, "camera_image", ("image",), **keys)
    where = f"{root / camera.path}"
    check(len(table) == 1, f"{where}: camera_image must have this image once, got {len(table)}")
    image = decode_jpeg(np.frombuffer(table["image"][0].as_py(), np.uint8))
    check(
        image.shape == (camera.height, camera.width, 3),
        f"{where}: image must be [{camera.height}, {camera.width}] as camera_calibration says, got "
        f"{list(image.shape[:2])}; download both again",
    )
    return image


def load_pixels(root: Path, frame: Frame) -> np.ndarray | None:
    """Return the pixels that the data set recorded for the points [C, N, 2] int16, -1 = not seen.

    They include the rolling shutter, which a projection with one pose does not. None where the
    component was not downloaded.

    Raises:
        UserError: the component is damaged or its image has another size.
    """
    segment, (time, version) = split_record(frame.points_path)
    if not (root / segment.path("lidar_camera_projection")).is_file():
        return None
    columns = _array_columns(version)
    table = read_rows(root, segment, "lidar_camera_projection", columns, time=int(time))
    lasers = table[LASER].to_pylist()
    found = []
    for image in _range_images(root, frame.points_path):
        check(
            image.laser in lasers,
            f"{root / segment.path('lidar_camera_projection')}: must have frame {time} of laser "
            f"{image.laser}, got none; download it again",
        )
        shape = (*image.mask.shape, 6)
        pixels = array_of(table, image.which, lasers.index(image.laser))
        if pixels is None:
            pixels = np.zeros(shape)
        check(
            pixels.shape == shape,
            f"{root / frame.points_path}: lidar_camera_projection must be {list(shape)}, got "
            f"{list(pixels.shape)}; download components of one release",
        )
        found.append(pixels[image.mask])
    return _by_camera(np.concatenate(found), frame)


def _by_camera(recorded: np.ndarray, frame: Frame) -> np.ndarray:
    """Sort [N, 6] (camera, x, y of a first and of a second projection) into camera slots."""
    uv = np.full((len(frame.cameras), len(recorded), 2), NOT_SEEN, np.int16)
    for slot, camera in enumerate(frame.cameras):
        if camera is None:
            continue
        for first in (3, 0):  # the first projection wins where both are of one camera
            here = recorded[:, first] == CAMERAS[camera.name]
            uv[slot, here] = np.floor(recorded[here, first + 1 : first + 3])
    return uv


def _array_columns(version: str) -> tuple[str, ...]:
    returns = RETURNS if version.endswith("-both") else RETURNS[:1]
    return tuple(f"{name}.{part}" for name in returns for part in ("values", "shape"))


@functools.lru_cache(maxsize=1)  # points, labels and pixels of a frame follow each other
def _range_images(root: Path, path: str) -> tuple[_Image, ...]:
    segment, (time, version) = split_record(path)
    keys = {"time": int(time)} | ({"laser": TOP} if version.startswith("top") else {})
    columns = _array_columns(version)
    table = read_rows(root, segment, "lidar", columns, **keys)
    check(len(table) > 0, f"{root / path}: lidar must have this frame, got none; download it again")
    lasers = table[LASER].to_pylist()
    images = []
    for which in RETURNS:
        for laser in sorted(lasers) if f"{which}.values" in columns else ():
            values = array_of(table, which, lasers.index(laser))
            if values is None:
                continue
            check(
                values.ndim == 3 and values.shape[2] >= 2,
                f"{root / path}: {which} must be [rows, columns, 2 or more], got "
                f"{list(values.shape)}; download it again",
            )
            images.append(_Image(laser, which, values))
    check(
        bool(images),
        f"{root / path}: lidar must have a range image, got only null; download it again",
    )
    return tuple(images)


def _pixel_poses(root: Path, segment: Segment, time: int, shape: tuple[int, ...]) -> np.ndarray:
    columns = _array_columns("top")
    table = read_rows(root, segment, "lidar_pose", columns, time=time, laser=TOP)
    check(
        len(table) == 1,
        f"{root / segment.path('lidar_pose')}: must have frame {time} of TOP once, got "
        f"{len(table)}; download it again",
    )
    poses = array_of(table, RETURNS[0], 0)
    check(
        poses is not None and poses.shape == (*shape, 6),
        f"{root / segment.path('lidar_pose')}: poses must be {[*shape, 6]}, got "
        f"{None if poses is None else list(poses.shape)}; download components of one release",
    )
    return poses


def _mount(mounts: dict[int, LidarMount], image: _Image, path: Path) -> LidarMount:
    """Return the calibration of an image's LiDAR."""
    check(
        image.laser in mounts,
        f"{path}: must have laser {image.laser} of lidar, got {sorted(mounts) or 'none'}; "
        "download it again",
    )
    mount, num_rows = mounts[image.laser], len(image.values)
    listed = mount.inclinations_rad
    check(
        listed is None or len(listed) == num_rows,
        f"{path}: laser {image.laser} must have {num_rows} inclinations, got "
        f"{0 if listed is None else len(listed)}; download components of one release",
    )
    return mount


@functools.lru_cache(maxsize=4)
def _mounts(root: Path, segment: Segment) -> dict[int, LidarMount]:
    parts = ("extrinsic.transform", "beam_inclination.min", "beam_inclination.max")
    columns = (*parts, "beam_inclination.values")
    table = read_rows(root, segment, "lidar_calibration", columns)
    mounts = {}
    for row, laser in enumerate(table[LASER].to_pylist()):
        values = table["beam_inclination.values"][row].as_py()
        ends = [table[f"beam_inclination.{name}"][row].as_py() for name in ("min", "max")]
        check(
            bool(values) or None not in ends,
            f"{root / segment.path('lidar_calibration')}: must have inclinations, or min and max, "
            f"got neither for laser {laser}; download it again",
        )
        mounts[laser] = LidarMount(
            T_vehicle_laser=matrix_of(table, "extrinsic.transform", row),
            inclinations_rad=np.array(values, np.float64) if values else None,
            lowest_rad=ends[0],
            highest_rad=ends[1],
        )
    return mounts

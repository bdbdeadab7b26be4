"""Byte layouts that several data sets share: KITTI and nuScenes points and labels, camera images.

In: a file. Out: arrays in the sensor's own frame, raw values. Every size is checked here, because a
copy cut short by a full disk otherwise reads as a smaller scan.
"""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.errors import UserError, check
from pipeline.image import decode_image
from pipeline.schema import NO_RING
from pipeline.types import Camera, Labels, PointCloud

KITTI_POINT_BYTES = 16  # float32 x, y, z, intensity
KITTI_LABEL_BYTES = 4  # uint32: semantic id in the low 16 bits, instance id in the high 16
NUSCENES_POINT_BYTES = 20  # float32 x, y, z, intensity, ring


class PointFiles:
    """Point counts without decoding, from file sizes and headers; notes what is not there."""

    def __init__(self, root: Path, record_bytes: int = 0) -> None:
        """Look below `root`; a point takes `record_bytes` in files that are nothing but points."""
        self.root = root
        self.record_bytes = record_bytes
        self.missing: list[str] = []

    def max_points(self, path: str) -> int:
        """Return how many points the file holds at most; 0 and a note where it is missing."""
        return self.count(path, lambda file: file.stat().st_size // self.record_bytes)

    def count(self, path: str, of_file: Callable[[Path], int]) -> int:
        """Return what `of_file` says of the file; 0 and a note where it is missing."""
        try:
            return of_file(self.root / path)
        except OSError:
            self.missing.append(path)
            return 0

    def check_complete(self, advice: str) -> None:
        """Refuse missing files, all in one error.

        Raises:
            UserError: how many are missing, the first ten, and `advice`.
        """
        missing = self.missing
        check(
            not missing,
            f"{self.root}: point files must be there, got {len(missing)} missing: "
            f"{', '.join(missing[:10])}{' ...' if len(missing) > 10 else ''}; {advice}",
        )


def read_kitti_points(path: Path) -> PointCloud:
    """Return a KITTI scan; the file has no beam numbers, so every ring is 255.

    Raises:
        UserError: missing, empty, cut short, or values that are not finite.
    """
    points = _read_points(path, KITTI_POINT_BYTES)
    return PointCloud(points, np.full(len(points), NO_RING, np.uint8))


def read_wide_kitti_points(path: Path) -> PointCloud:
    """Return a scan of 20-byte records (SemanticSTF); the fifth number is left out.

    Raises:
        UserError: missing, empty, cut short, or values that are not finite.
    """
    values = _read_points(path, NUSCENES_POINT_BYTES)
    ring = np.full(len(values), NO_RING, np.uint8)
    return PointCloud(np.ascontiguousarray(values[:, :4]), ring)


def read_kitti_labels(path: Path, num_points: int) -> Labels:
    """Return the labels of a KITTI scan: semantic low 16 bits, instance high 16 bits.

    Raises:
        UserError: missing, cut short, or not one label per point.
    """
    packed = _read_labels(path, "<u4", num_points)
    return Labels((packed & 0xFFFF).astype(np.uint16), (packed >> 16).astype(np.uint16))


def read_nuscenes_points(path: Path) -> PointCloud:
    """Return a nuScenes scan (`.pcd.bin`, in truth plain float32) with its beam numbers.

    Raises:
        UserError: missing, empty, cut short, values that are not finite, or rings outside 0..254.
    """
    values = _read_points(path, NUSCENES_POINT_BYTES)
    ring = values[:, 4]
    check(
        bool(((ring >= 0) & (ring < NO_RING)).all()),
        f"{path}: ring must be in 0..254, got {ring.min():g}..{ring.max():g}; "
        "is this a nuScenes scan?",
    )
    return PointCloud(np.ascontiguousarray(values[:, :4]), ring.astype(np.uint8))


def read_nuscenes_labels(path: Path, num_points: int) -> np.ndarray:
    """Return lidarseg ids [N] uint16 (the file's own numbering).

    Raises:
        UserError: missing, or not one label per point.
    """
    return _read_labels(path, "u1", num_points).astype(np.uint16)


def read_nuscenes_panoptic(path: Path, num_points: int) -> np.ndarray:
    """Return instance ids [N] uint16, unique in the scene, 0 = none.

    The file holds 1000 * category + instance with instance 0 for stuff; things keep that number.

    Raises:
        UserError: missing, broken, or not one value per point.
    """
    try:
        with np.load(path) as archive:
            values = archive["data"]
    except FileNotFoundError:
        raise UserError(f"{path}: instances must be a file, not found; copy it again") from None
    except Exception as error:  # zipfile, zlib and numpy each raise their own kinds
        raise UserError(
            f"{path}: instances must be an .npz with the array 'data', got {error!r}; copy it again"
        ) from error
    check_count(path, len(values), num_points)
    return np.where(values % 1000 > 0, values, 0).astype(np.uint16)


def read_camera(root: Path, camera: Camera) -> np.ndarray:
    """Return the image of a camera [H, W, 3] uint8 RGB.

    Raises:
        UserError: missing, broken, or of another size than the index says.
    """
    path = root / camera.path
    image = decode_image(path)
    check(
        image.shape == (camera.height, camera.width, 3),
        f"{path}: image must be [{camera.height}, {camera.width}] as the index says, got "
        f"{list(image.shape[:2])}; rebuild the index or copy the file again",
    )
    return image


def check_finite(path: Path, values: np.ndarray) -> None:
    """Refuse a scan with NaN or infinity.

    Raises:
        UserError: how many points are affected.
    """
    if not values.size or np.isfinite([values.min(), values.max()]).all():  # NaN passes through
        return
    finite = np.isfinite(values)
    num_bad = int((~finite).any(axis=1).sum())
    check(
        num_bad == 0,
        f"{path}: points must be finite, got {num_bad} of {len(values)} with NaN or inf; "
        "the file is damaged, copy it again",
    )


def _read(path: Path, what: str, record_bytes: int) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{path}: {what} must be a readable file, got '{reason}'; copy it again"
        ) from None
    check(
        len(data) % record_bytes == 0,
        f"{path}: {what} must be a multiple of {record_bytes} bytes, got {len(data)} bytes; "
        "the file is cut short, copy it again",
    )
    return data


def _read_points(path: Path, record_bytes: int) -> np.ndarray:
    data = _read(path, "points", record_bytes)
    check(bool(data), f"{path}: points must hold at least one record, got 0 bytes; copy it again")
    values = (
        np.frombuffer(data, "<f4").reshape(-1, record_bytes // 4).astype(np.float32)
    )  # writable
    check_finite(path, values)
    return values


def _read_labels(path: Path, dtype: str, num_points: int) -> np.ndarray:
    labels = np.frombuffer(_read(path, "labels", np.dtype(dtype).itemsize), dtype)
    check_count(path, len(labels), num_points)
    return labels


def check_count(path: Path, count: int, num_points: int) -> None:
    """Refuse labels that are not one per point.

    Raises:
        UserError: both counts.
    """
    check(
        count == num_points,
        f"{path}: labels must be one per point, got {count} for {num_points} points; "
        "scan and labels are of different frames or one is cut short, copy both again",
    )


def read_png_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of a PNG from its first 24 bytes.

    Raises:
        UserError: not a PNG.
    """
    with path.open("rb") as file:
        head = file.read(24)
    check(
        len(head) == 24 and head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR",
        f"{path}: image must be a PNG, got {head[:8]!r}; copy it again",
    )
    width, height = struct.unpack(">II", head[16:24])
    return height, width

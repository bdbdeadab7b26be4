"""Scans and labels in .npy files (Synth4D, DAPS-3D, folders of your own).

In: a file. Out: a cloud in the sensor's own frame, or raw labels. Pickles are never opened: a file
from the network could run code.
"""

from pathlib import Path

import numpy as np

from pipeline.errors import UserError, check
from pipeline.formats import check_count, check_finite
from pipeline.schema import NO_RING
from pipeline.types import Labels, PointCloud


def read_npy_points(path: Path) -> PointCloud:
    """Return the scan of an .npy file [N, 3 or more]; intensity 0 where there is no fourth column.

    Raises:
        UserError: missing, broken, empty, of another shape, or values that are not finite.
    """
    values = _load_npy(path, "points")
    check(
        values.ndim == 2
        and values.shape[1] >= 3
        and len(values) > 0
        and values.dtype.kind in "fiu",
        f"{path}: points must be numbers [N, 3 or more], got {values.dtype} {list(values.shape)}; "
        "copy it again",
    )
    points = np.zeros((len(values), 4), np.float32)
    width = min(values.shape[1], 4)
    points[:, :width] = values[:, :width]
    check_finite(path, points)
    return PointCloud(points, np.full(len(points), NO_RING, np.uint8))


def read_npy_labels(path: Path, num_points: int) -> Labels:
    """Return the labels of an .npy file of integers, one per point in any shape.

    Raises:
        UserError: missing, broken, not integers of 0..65535, or not one per point.
    """
    values = _load_npy(path, "labels").ravel()
    check(
        values.dtype.kind in "iu" and values.min(initial=0) >= 0 and values.max(initial=0) < 65536,
        f"{path}: labels must be integers of 0..65535, got {values.dtype}; copy it again",
    )
    check_count(path, len(values), num_points)
    return Labels(values.astype(np.uint16))


def npy_shape(path: Path) -> tuple[int, ...]:
    """Return the shape that the header of an .npy file announces.

    Raises:
        UserError: no such header.
        OSError: missing.
    """
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}
            return read.get(version, np.lib.format.read_array_header_2_0)(file)[0]
        except ValueError as error:
            raise UserError(f"{path}: must be an .npy file, got {error}; copy it again") from None


def _load_npy(path: Path, what: str) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{path}: {what} must be a readable file, got '{reason}'; copy it again"
        ) from None
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path}: {what} must be a whole .npy file of numbers, got '{error}'; copy it again"
        ) from None

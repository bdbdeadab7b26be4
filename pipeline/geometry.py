"""Frames, transforms and the one rule that maps native pixels to store pixels.

Right-handed, metres, radians; u right, v down, pixel centre at integers; quaternions wxyz.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Transform:
    """A rigid transform, or many, whose product refuses frames that do not meet.

    `Transform("cam", "ego", m) @ Transform("ego", "lidar", n)` maps LiDAR points to the camera.
    """

    dst: str
    src: str
    matrix: np.ndarray  # [..., 4, 4] float64

    def __post_init__(self) -> None:
        """Check the shape once, where the transform is made."""
        if np.shape(self.matrix)[-2:] != (4, 4):
            name = f"T_{self.dst}_{self.src}"
            raise ValueError(f"{name}: must be [4, 4], got {np.shape(self.matrix)}")

    def __matmul__(self, other: "Transform") -> "Transform":
        """Compose: T_a_b @ T_b_c = T_a_c.

        Raises:
            ValueError: the inner frames differ.
        """
        if self.src != other.dst:
            raise ValueError(
                f"T_{self.dst}_{self.src} @ T_{other.dst}_{other.src}: inner frames must meet, "
                f"got '{self.src}' and '{other.dst}'"
            )
        return Transform(self.dst, other.src, self.matrix @ other.matrix)

    def inverse(self) -> "Transform":
        """Return the transform the other way round (rotation transposed, not a general inverse)."""
        return Transform(self.src, self.dst, invert_rigid(self.matrix))


def rotation_from_quaternion(quaternion_wxyz: np.ndarray) -> np.ndarray:
    """Return the rotation matrix [..., 3, 3] float64 of a quaternion in the order w, x, y, z.

    Args:
        quaternion_wxyz: [..., 4], any non-zero length (normalised here).

    Raises:
        ValueError: it has no length.
    """
    w, x, y, z = np.moveaxis(np.asarray(quaternion_wxyz, np.float64), -1, 0)
    norm = np.sqrt(w * w + x * x + y * y + z * z)
    if not np.all(norm > 0):
        raise ValueError(f"quaternion must have a length, got {list(quaternion_wxyz)}")
    w, x, y, z = w / norm, x / norm, y / norm, z / norm
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def rigid(rotation: np.ndarray, translation_m: np.ndarray) -> np.ndarray:
    """Return [..., 4, 4] float64: a rotation [..., 3, 3], then a translation [..., 3]."""
    matrix = np.zeros((*np.shape(rotation)[:-2], 4, 4))
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = translation_m
    matrix[..., 3, 3] = 1
    return matrix


def invert_rigid(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse [..., 4, 4] of a rigid transform."""
    rotation = np.swapaxes(matrix[..., :3, :3], -1, -2)
    return rigid(rotation, (-rotation @ matrix[..., :3, 3:])[..., 0])


def move(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points [N, 3] float64 moved by a [4, 4] transform; the input may be any float."""
    return points[:, :3].astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def store_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return (height, width) of an image in the stores: round(native * scale) per axis."""
    return int(np.rint(height * scale)), int(np.rint(width * scale))


def store_pixels(pixels: np.ndarray, native_length: int, store_length: int) -> np.ndarray:
    """Return the store pixel of native pixel numbers along one axis: floor((p + 0.5) * scale).

    Args:
        pixels: any shape, integer native columns (or rows), >= 0.
        native_length: image width (or height), native.
        store_length: image width (or height) in the store.

    Returns:
        Same shape, int64, in 0 .. store_length - 1.
    """
    scaled = np.floor((pixels.astype(np.float64) + 0.5) * (store_length / native_length))
    return np.minimum(scaled.astype(np.int64), store_length - 1)

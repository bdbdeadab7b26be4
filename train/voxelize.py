"""Points into voxels: LiDAR points in, one representative point per voxel and the way back out.

The paper's network sees the intensity of one point per voxel: no averaging, no vote, no range
clipping, and no wrap-around at +-180 degrees (method.md 3.2). Voxels come sorted by (first, second,
third) cell index, so that rows that are neighbors in space are neighbors in memory: the gathers of
the sparse convolutions run faster on them than in file order.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.errors import check

KINDS = ("cylindrical", "cartesian")


@dataclass(frozen=True)
class VoxelConfig:
    """The voxel grid. Defaults: SLidR's and Seal's nuScenes setting (method.md 3.2)."""

    kind: str = "cylindrical"  # (range in the plane, azimuth, z), or cartesian (x, y, z)
    size_m: float = 0.1  # edge of a cell along every length, m
    angle_deg: float = 1.0  # width of a cell along the azimuth, degrees; cylindrical only

    def __post_init__(self) -> None:
        """Refuse an unknown kind or a size that is not positive."""
        check(
            self.kind in KINDS,
            f"voxels.kind: must be one of {', '.join(KINDS)}, got '{self.kind}'",
        )
        for name in ("size_m", "angle_deg"):
            value = getattr(self, name)
            check(np.isfinite(value) and value > 0, f"voxels.{name}: must be positive, got {value}")


@dataclass(frozen=True)
class Voxels:
    """The occupied voxels of one cloud, sorted by cell."""

    cells: np.ndarray  # [V, 3] int32, each once, ascending by row
    point_idx: np.ndarray  # [V] int64, the first point in file order of each voxel
    voxel_idx: np.ndarray  # [N] int64, the voxel of each point


def cells_of(points_lidar: np.ndarray, config: VoxelConfig) -> np.ndarray:
    """Return the cell of every point, [N, 3] int64.

    Cylindrical cells are (floor(rho / size), floor(phi / angle), floor(z / size)) with
    rho = sqrt(x^2 + y^2) and phi = atan2(y, x) in degrees, -180 to 180.

    Args:
        points_lidar: [N, 3 or more] floating, m; only x, y, z are read.
        config: the grid.

    Raises:
        UserError: not such an array, a coordinate that is not finite, or a cell beyond int32.

    Source: method.md 3.2 (SLidR's loaders). How we differ: computed in float64 from the float32
    points, where SLidR divides in float32, so a point on a cell border may fall on its other side.
    """
    check(
        points_lidar.ndim == 2 and points_lidar.shape[1] >= 3,
        f"points: must be [N, 3 or more], got {list(points_lidar.shape)}",
    )
    x, y, z = points_lidar[:, :3].astype(np.float64).T
    if config.kind == "cylindrical":
        scaled = (
            np.hypot(x, y) / config.size_m,
            np.degrees(np.arctan2(y, x)) / config.angle_deg,
            z / config.size_m,
        )
    else:
        scaled = (x / config.size_m, y / config.size_m, z / config.size_m)
    cells = np.floor(np.stack(scaled))  # [3, N]: reductions over rows of three are slow
    bad = ~(np.abs(cells) < 2**31).all(axis=0)  # also NaN and infinity
    where = int(bad.argmax()) if len(bad) else 0
    check(
        not bad.any(),
        f"points: must be finite and within 2^31 cells, got {bad.sum()} that are not (the first is "
        f"point {where}: {points_lidar[where : where + 1, :3].tolist()}); drop them first",
    )
    return cells.astype(np.int64).T


def voxelize(points_lidar: np.ndarray, config: VoxelConfig) -> Voxels:
    """Return the occupied voxels, the representative point of each, and the voxel of every point.

    The representative is the first point of the voxel in file order, so the result is a function
    of the cloud alone. Arguments and errors as `cells_of`.
    """
    cells = cells_of(points_lidar, config)
    if len(cells) == 0:
        empty = np.zeros(0, dtype=np.int64)
        return Voxels(np.zeros((0, 3), dtype=np.int32), empty, empty)
    low = [int(axis.min()) for axis in cells.T]
    extent = [int(axis.max()) - least + 1 for axis, least in zip(cells.T, low, strict=True)]
    num_keys = extent[0] * extent[1] * extent[2]
    check(
        num_keys < 2**63,
        f"points: span {extent} cells, too many to number; drop far points or use larger voxels",
    )
    first, second, third = (axis - least for axis, least in zip(cells.T, low, strict=True))
    keys = (first * extent[1] + second) * extent[2] + third
    order = order_of(keys, num_keys)
    in_order = keys[order]
    is_first = np.concatenate([[True], in_order[1:] != in_order[:-1]])
    voxel_idx = np.empty(len(keys), np.int64)
    voxel_idx[order] = np.cumsum(is_first) - 1
    point_idx = order[is_first]
    return Voxels(cells[point_idx].astype(np.int32), point_idx, voxel_idx)


def order_of(keys: np.ndarray, num_keys: int) -> np.ndarray:
    """Return the stable ascending order [N] int64 of keys [N] int64 in 0 .. num_keys - 1.

    Sorting numbers is several times faster than sorting their places, so both go into one number
    where 63 bits hold them.
    """
    bits = len(keys).bit_length()
    if num_keys << bits >= 2**63:
        return np.argsort(keys, kind="stable")
    packed = np.sort((keys << bits) | np.arange(len(keys)))
    return packed & ((1 << bits) - 1)

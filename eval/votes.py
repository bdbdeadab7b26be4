"""Temporal voting: neighboring scans have a say in each point's class.

In: class probabilities of some scans and their poses. Out: the classes of one of them. A point asks
its nearest neighbor in every other scan, moved by the poses; who is farther than a limit is silent.
"""

import numpy as np
from scipy.spatial import cKDTree

from pipeline.errors import UserError, check
from pipeline.geometry import invert_rigid

REACH_M = 0.3  # a neighbor farther away is another surface; ours


def vote(
    points: list[np.ndarray],
    probabilities: list[np.ndarray],
    T_world_lidar: list[np.ndarray],
    center: int,
    reach_m: float = REACH_M,
) -> np.ndarray:
    """Return the summed probabilities [N, K] of one scan's points.

    Args:
        points: [N_i, 3 or more] m, each in its own LiDAR frame.
        probabilities: [N_i, K], each row sums to 1.
        T_world_lidar: [4, 4] of each scan.
        center: which scan is asked for.
        reach_m: farther neighbors do not vote.

    Raises:
        ValueError: lists of different lengths.

    Source: idea of temporal voting at inference, SuperFlow++ (arXiv 2503.19912, abstract); the rule
    is ours. What moves between scans votes for what it left behind: keep the neighborhood short.
    """
    if not len(points) == len(probabilities) == len(T_world_lidar):
        raise ValueError(
            f"vote: points, probabilities, poses must be as many, got {len(points)}, "
            f"{len(probabilities)}, {len(T_world_lidar)}"
        )
    total = probabilities[center].copy()
    T_lidar_world = invert_rigid(T_world_lidar[center])
    here = points[center][:, :3].astype(np.float64)
    for other, cloud in enumerate(points):
        if other == center or len(cloud) == 0:
            continue
        T = T_lidar_world @ T_world_lidar[other]
        moved = cloud[:, :3].astype(np.float64) @ T[:3, :3].T + T[:3, 3]
        distance, nearest = cKDTree(moved).query(here, distance_upper_bound=reach_m)
        near = np.isfinite(distance)
        total[near] += probabilities[other][nearest[near]]
    return total


def read_poses(path, num_scans: int) -> list[np.ndarray]:
    """Return T_world_lidar [4, 4] of each scan from a text file of 12 numbers a line.

    Raises:
        UserError: unreadable, not 12 numbers a line, or not one line per scan.
    """
    try:
        rows = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: poses must be a text file of 12 numbers a line, got '{error}'; write the "
            "first three rows of T_world_lidar"
        ) from None
    check(
        rows.shape == (num_scans, 12) and bool(np.isfinite(rows).all()),
        f"{path}: poses must be {num_scans} lines of 12 numbers, one per scan in order of the file "
        f"names, got {list(rows.shape)}; write the first three rows of T_world_lidar",
    )
    return [np.vstack([row.reshape(3, 4), [0, 0, 0, 1]]) for row in rows]

"""What is wrong with an index, told before hours are spent on it.

In: frames and the root of their recordings. Out: lines for the user; none means nothing was found.
Image and label files are looked for here only: building the index does not stat them. Labels named
like a scan that is not there tell of scans that did not arrive.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.files import file_of
from pipeline.types import Camera, Frame

_LISTED = 10


def find_problems(frames: Iterable[Frame], root: Path) -> list[str]:
    """Return one line per problem: files not there, time running backwards, odd cameras."""
    missing: dict[str, list[str]] = {"point": [], "image": [], "label": [], "sweep": []}
    odd: list[str] = []
    is_there: dict[str, bool] = {}  # by file: a Parquet file holds hundreds of frames
    times: dict[str, dict[int, int]] = defaultdict(dict)  # scene -> position -> t_ns
    used: dict[str, set[str]] = defaultdict(set)  # folder of labels named like scans -> labels
    for frame in frames:
        label = PurePosixPath(file_of(frame.label_path or ""))
        if label.stem and label.stem == PurePosixPath(file_of(frame.points_path)).stem:
            used[str(label.parent)].add(label.name)
        for kind, path in _files(frame):
            file = file_of(path)
            if file not in is_there:
                is_there[file] = (root / file).is_file()
            if not is_there[file]:
                missing[kind].append(path)
        times[frame.scene][frame.position] = frame.t_ns
        pose = frame.T_world_lidar
        if pose is not None and not _is_rigid(pose):
            odd.append(f"{frame.frame_id}: T_world_lidar must hold a rotation and be finite")
        for camera in frame.cameras:
            if camera is not None:
                odd += [f"{frame.frame_id}/{camera.name}: {fault}" for fault in _faults(camera)]
    for scene, clock in times.items():
        for before, after in pairwise(sorted(clock)):
            if clock[after] <= clock[before]:
                odd.append(f"{scene}/{after}: t_ns must be later than that of {scene}/{before}")
    problems = [
        f"{root}: {len(paths)} {kind} files are missing: {', '.join(paths[:_LISTED])}"
        f"{' ...' if len(paths) > _LISTED else ''}; unpack the archive that holds them"
        for kind, paths in missing.items()
        if paths
    ]
    lost = [path for folder, labels in used.items() for path in _others(root, folder, labels)]
    if lost:
        problems.append(
            f"{root}: {len(lost)} label files have no scan: {', '.join(lost[:_LISTED])}"
            f"{' ...' if len(lost) > _LISTED else ''}; copy the scans again, or remove these"
        )
    more = [f"and {len(odd) - _LISTED} more like these"] if len(odd) > _LISTED else []
    return problems + odd[:_LISTED] + more


def _others(root: Path, folder: str, labels: set[str]) -> list[str]:
    """Return the paths of label files in a folder that are none of these."""
    suffixes = {PurePosixPath(name).suffix for name in labels}
    names = sorted(set(os.listdir(root / folder)) - labels) if (root / folder).is_dir() else []
    return [f"{folder}/{name}" for name in names if PurePosixPath(name).suffix in suffixes]


def _files(frame: Frame) -> list[tuple[str, str]]:
    labels = {path for path in (frame.label_path, frame.instance_path) if path}
    return [
        ("point", frame.points_path),
        *(("image", camera.path) for camera in frame.cameras if camera is not None),
        *(("label", path) for path in sorted(labels)),
        *(("sweep", sweep.path) for sweep in frame.sweeps),
    ]


def _faults(camera: Camera) -> list[str]:
    K = camera.K
    faults = []
    inside = 0 < K[0, 2] < camera.width and 0 < K[1, 2] < camera.height
    if not (K[0, 0] > 0 and K[1, 1] > 0 and inside and np.allclose(K[2], [0, 0, 1])):
        faults.append(f"K must have its center in the image, focal lengths > 0, got {K.tolist()}")
    if not _is_rigid(camera.T_cam_lidar):
        faults.append("T_cam_lidar must hold a rotation")
    return faults


def _is_rigid(matrix: np.ndarray) -> bool:
    rotation = matrix[:3, :3]
    is_rotation = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
    return bool(np.isfinite(matrix).all() and is_rotation and np.linalg.det(rotation) > 0)

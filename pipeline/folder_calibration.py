"""calibration.yaml and splits.yaml of a folder of your own.

In: YAML as a person writes it. Out: cameras with K, distortion and T_cam_lidar, and scene lists.
Every key is checked by name: a transform that is read the wrong way round shows only in pictures.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.errors import UserError, check, unknown_name
from pipeline.types import Camera

_CAMERA_KEYS = ("width", "height", "K", "distortion", "T_cam_lidar")
_NEEDED = ("width", "height", "K", "T_cam_lidar")


def read_cameras(path: Path) -> dict[str, Camera]:
    """Return the cameras by name, in the file's order; none without the file.

    Raises:
        UserError: broken YAML, a key that is missing or unknown, or numbers that do not fit.
    """
    if not path.is_file():
        return {}
    content = _load(path)
    check(
        isinstance(content, dict) and isinstance(content.get("cameras"), dict),
        f"{path}: must have 'cameras' with one entry per camera, got "
        f"{list(content) if isinstance(content, dict) else content!r}; see docs/datasets.md",
    )
    return {str(name): _camera(path, str(name), e) for name, e in content["cameras"].items()}


def read_splits(
    path: Path, scenes: Collection[str], splits: Collection[str]
) -> dict[str, frozenset[str]]:
    """Return split -> scenes; without the file every scene is in train.

    Raises:
        UserError: broken YAML, or a split or scene that is not there.
    """
    if not path.is_file():
        return {name: frozenset(scenes if name == "train" else ()) for name in splits}
    content = _load(path)
    check(
        isinstance(content, dict) and all(isinstance(v, list) for v in content.values()),
        f"{path}: must be lists of scenes by split, got {content!r}; write train: [a, b]",
    )
    for name, listed in content.items():
        if name not in splits:
            raise unknown_name(f"{path}: split", str(name), splits)
        for scene in map(str, listed):
            if scene not in scenes:
                raise unknown_name(f"{path}: scene in {name}", scene, scenes)
    return {name: frozenset(map(str, content.get(name, ()))) for name in splits}


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: must be YAML, got {reason}; correct it") from None


def _camera(path: Path, name: str, entry: Any) -> Camera:
    where = f"{path}: camera '{name}'"
    check(isinstance(entry, dict), f"{where}: must have {', '.join(_NEEDED)}, got {entry!r}")
    for key in entry:
        if key not in _CAMERA_KEYS:
            raise unknown_name(f"{where}: key", str(key), _CAMERA_KEYS)
    missing = [key for key in _NEEDED if key not in entry]
    check(not missing, f"{where}: must have {', '.join(_NEEDED)}, got none of {missing}; add them")
    size = [entry["height"], entry["width"]]
    check(
        all(isinstance(n, int) and n > 0 for n in size),
        f"{where}: height and width must be positive whole numbers, got {size}",
    )
    distortion = _numbers(f"{where}: distortion", entry.get("distortion", []), (0, 4, 5))
    matrix = _numbers(f"{where}: T_cam_lidar", entry["T_cam_lidar"], (12, 16))
    T_cam_lidar = np.eye(4)
    T_cam_lidar[: len(matrix) // 4] = matrix.reshape(-1, 4)
    rotation = T_cam_lidar[:3, :3]
    check(
        np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4) and np.linalg.det(rotation) > 0,
        f"{where}: T_cam_lidar must hold a rotation in its first three columns, got "
        f"{rotation.tolist()}; it maps LiDAR points to the camera (x right, y down, z forward)",
    )
    return Camera(
        name=name,
        token="",
        path="",
        height=size[0],
        width=size[1],
        K=_numbers(f"{where}: K", entry["K"], (9,)).reshape(3, 3),
        T_cam_lidar=T_cam_lidar,
        t_ns=0,
        distortion=tuple(distortion.tolist()),
    )


def _numbers(where: str, values: Any, counts: tuple[int, ...]) -> np.ndarray:
    """Return a list, or a list of lists, of numbers as [count] float64."""
    try:
        flat = np.array(values, np.float64).ravel()
    except (ValueError, TypeError):
        flat = np.full(1, np.nan)
    check(
        len(flat) in counts and bool(np.isfinite(flat).all()),
        f"{where} must be {' or '.join(map(str, counts))} numbers, got {str(values)[:60]}",
    )
    return flat

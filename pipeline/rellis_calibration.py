"""Calibration and list files of RELLIS-3D.

In: transforms.yaml, vel2os1.yaml, camera_info.txt, pt_*.lst. Out: matrices and frame lists. A
transform of the file maps its second-named sensor to the first (camera to LiDAR).
"""

from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from pipeline.errors import UserError, check
from pipeline.geometry import rigid, rotation_from_quaternion


def read_transform(path: Path, key: str) -> np.ndarray:
    """Return the matrix [R(q) | t] [4, 4] float64 of one entry: q = {w, x, y, z}, t = {x, y, z} m.

    Raises:
        UserError: unreadable, or the entry or one of its numbers is missing.
    """
    try:
        content = yaml.safe_load(path.read_text())
        entry = content[key]
        q = [float(entry["q"][axis]) for axis in "wxyz"]
        t = [float(entry["t"][axis]) for axis in "xyz"]
        return rigid(rotation_from_quaternion(np.array(q)), np.array(t))
    except (yaml.YAMLError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"{path}: must have the entry '{key}' with q: w x y z and t: x y z, got "
            f"{type(error).__name__} {str(error).splitlines()[0][:80]}; copy the file again"
        ) from None


def read_intrinsics(path: Path) -> np.ndarray:
    """Return K [3, 3] float64, pixels, of a camera_info.txt: fx fy cx cy.

    Raises:
        UserError: not four numbers.
    """
    words = path.read_text(errors="replace").split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    check(
        len(values) == 4 and bool(np.isfinite(values).all()),
        f"{path}: must be the four numbers fx fy cx cy, got '{' '.join(words)[:60]}'; "
        "copy the file again",
    )
    fx, fy, cx, cy = values
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def read_list(path: Path) -> frozenset[tuple[str, int]]:
    """Return (sequence, scan number) of every line '<sequence>/<folder>/<number>.bin <label>'.

    Raises:
        UserError: a line of another form.
    """
    found = set()
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        scan = PurePosixPath(line.split()[0])
        check(
            scan.stem.isdecimal() and len(scan.parts) >= 3,
            f"{path}: line {number} must be '<sequence>/<folder>/<number>.bin <label>', got "
            f"'{line[:60]}'; copy the file again",
        )
        found.add((scan.parts[-3], int(scan.stem)))
    return frozenset(found)

"""Where the ego vehicle was: ego_pose.json of a nuScenes release, thinned while it is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.geometry import rigid, rotation_from_quaternion
from pipeline.json_scan import hash_values
from pipeline.json_tables import Choice, Record, follow, stream_records

_FIELDS = ("token", "rotation", "translation")


@dataclass(frozen=True)
class EgoPoses:
    """Ego poses of the kept shots in one array; 600,000 records would take 600 MB."""

    rows: dict[str, int]
    T_world_ego: np.ndarray  # [n, 4, 4] float64


def load_ego_poses(path: Path, needed: Mapping[str, str]) -> EgoPoses:
    """Return the poses that are needed.

    Args:
        path: ego_pose.json.
        needed: token of a pose -> token of a row of sample_data that names it.

    Raises:
        UserError: a pose is missing, or not 4 and 3 numbers.
    """
    hashes = np.sort(hash_values(list(needed)))

    def keep(found: np.ndarray) -> np.ndarray:
        return hashes[np.searchsorted(hashes[:-1], found[:, 0])] == found[:, 0]

    tokens: dict[str, int] = {}
    matrices = []
    for rows in stream_records(path, _FIELDS, Choice(("token",), keep)):
        rows = [row for row in rows if row["token"] in needed]  # equal hashes are not equal names
        tokens |= {row["token"]: len(tokens) + k for k, row in enumerate(rows)}
        matrices.append(rigid_of_records(rows, path))
    for token, shot in needed.items():
        follow(tokens, token, "ego_pose", "sample_data", shot, "ego_pose_token")
    return EgoPoses(tokens, np.concatenate(matrices))


def rigid_of_records(rows: Sequence[Record], path: Path) -> np.ndarray:
    """Return the transforms [n, 4, 4] float64 of records with rotation (wxyz) and translation.

    Raises:
        UserError: not 4 and 3 finite numbers, or a rotation without length; names the record.
    """
    columns = [[row["rotation"] for row in rows], [row["translation"] for row in rows]]
    try:
        rotation, translation = (np.array(column, np.float64) for column in columns)
        if not rows:
            return np.empty((0, 4, 4))
        if rotation.shape[1:] != (4,) or translation.shape[1:] != (3,):
            raise ValueError("other counts")
        if not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
            raise ValueError("no numbers")
        return rigid(rotation_from_quaternion(rotation), translation)
    except (ValueError, TypeError):
        for row in rows if len(rows) > 1 else ():
            rigid_of_records([row], path)
        row = rows[0]
        raise UserError(
            f"{path.name} record {row['token']}: rotation and translation must be 4 and 3 numbers, "
            f"got {row['rotation']} and {row['translation']}; unpack the metadata archive again"
        ) from None

"""Where the ego vehicle was: ego_pose.json of a nuScenes release, thinned while it is read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.geometry import rigid, rotation_from_quaternion
from pipeline.json_scan import HashSet, hash_values
from pipeline.json_tables import Choice, follow, stream_columns

RIGID = [("rotation", pa.list_(pa.float64(), 4)), ("translation", pa.list_(pa.float64(), 3))]
_SCHEMA = pa.schema([("token", pa.string()), *RIGID])


@dataclass(frozen=True)
class EgoPoses:
    """Ego poses of the kept shots."""

    rows: np.ndarray  # [shots] int64, into T_world_ego
    T_world_ego: np.ndarray  # [n, 4, 4] float64


def load_ego_poses(path: Path, shots: pa.Table) -> EgoPoses:
    """Return the poses that are needed.

    Args:
        path: ego_pose.json.
        shots: rows of sample_data with `token` and `ego_pose_token`.

    Raises:
        UserError: a pose is missing, or not 4 and 3 numbers.
    """
    needed = shots["ego_pose_token"]
    hashes = [hash_values(chunk) for chunk in needed.chunks]
    wanted = HashSet(np.concatenate([np.empty(0, np.uint64), *hashes]))
    choice = Choice(("token",), lambda found: wanted.holds(found[:, 0]))
    tokens, T_world_ego = [], [np.empty((0, 4, 4))]
    for batch in stream_columns(path, _SCHEMA, choice):
        tokens.append(batch["token"])
        T_world_ego.append(rigid_of(batch, path))
    rows = rows_of(pa.chunked_array(tokens, pa.string()), needed)
    for lost in np.flatnonzero(rows < 0)[:1]:
        token, shot = needed[int(lost)].as_py(), shots["token"][int(lost)].as_py()
        follow({}, token, "ego_pose", "sample_data", shot, "ego_pose_token")
    return EgoPoses(rows, np.concatenate(T_world_ego))


def rows_of(tokens: pa.Array | pa.ChunkedArray, wanted: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the row [n] int64 of each wanted token in `tokens`, -1 where it lacks one."""
    return pc.fill_null(pc.index_in(wanted, tokens), -1).to_numpy().astype(np.int64)


def rigid_of(table: pa.RecordBatch, path: Path) -> np.ndarray:
    """Return the transforms [n, 4, 4] float64 of a table with `token` and RIGID.

    Raises:
        UserError: numbers that are not finite, or a rotation without length; names the record.
    """
    rotation, translation = (
        pc.list_flatten(table[name]).to_numpy().reshape(-1, kind.list_size) for name, kind in RIGID
    )
    length = np.square(rotation).sum(1)
    good = (length > 0) & np.isfinite(length) & np.isfinite(translation).all(1)
    for row in np.flatnonzero(~good)[:1]:
        raise UserError(
            f"{path.name} record {table['token'][int(row)]}: rotation and translation must be 4 "
            f"and 3 numbers, got {rotation[row].tolist()} and {translation[row].tolist()}; "
            "unpack the metadata archive again"
        )
    return rigid(rotation_from_quaternion(rotation), translation)

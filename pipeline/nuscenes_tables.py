"""The tables of a nuScenes version folder, thinned while they are read.

In: a folder of JSON tables. Out: scans and keyframe images as columns, with mounts and ego poses;
boxes, maps, radar and camera images between keyframes are never kept. There are 545,000 rows, so
none becomes a Python object.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.ego_poses import RIGID, EgoPoses, load_ego_poses, rigid_of, rows_of
from pipeline.errors import UserError, check
from pipeline.geometry import Transform
from pipeline.json_fields import RAW, batch_of_records
from pipeline.json_scan import HashSet, hash_values
from pipeline.json_tables import Choice, follow, read_records, stream_columns
from pipeline.manifest import load_manifest

LIDAR = "LIDAR_TOP"
_MOUNT = "calibrated_sensor_token"
_USED_ONCE = ("sample_token", "ego_pose_token")  # not worth a copy in one piece
_TEXTS = ("token", "sample_token", "ego_pose_token", _MOUNT, "filename", "next")
_SHOT = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        ("timestamp", pa.int64()),
        ("is_key_frame", pa.bool_()),
        ("height", RAW),
        ("width", RAW),
    ]
)


@dataclass(frozen=True)
class Mounts:
    """calibrated_sensor.json, and which slot of a keyframe each of its rows fills."""

    tokens: pa.ChunkedArray
    T_ego_sensor: np.ndarray  # [mounts, 4, 4] float64
    intrinsics: list[list]  # 3x3, [] for the LiDAR
    slots: np.ndarray  # [mounts] int64: 0 the LiDAR, k the k-th camera that is wanted, -1 others


@dataclass(frozen=True)
class Tables:
    """What is kept. A shot is one row of sample_data: a scan, or an image of a keyframe."""

    scenes: dict[str, list[str]]  # name -> sample tokens in time order, in the order of scene.json
    shots: pa.Table  # _SHOT but for the mount
    mounts: Mounts
    mount_rows: np.ndarray  # [shots] int64
    keyframes: np.ndarray  # [samples of all scenes in order, 1 + cameras] row of a shot, -1 = none
    ego_poses: EgoPoses
    label_paths: dict[str, str]  # by LiDAR token
    instance_paths: dict[str, str]

    @functools.cached_property
    def t_ns(self) -> np.ndarray:
        """Time of each shot [shots] int64."""
        return self.shots["timestamp"].to_numpy() * 1000

    @functools.cached_property
    def lidars(self) -> np.ndarray:
        """Row of the scan of every keyframe [samples] int64.

        Raises:
            UserError: one has none.
        """
        lidars = self.keyframes[:, 0]
        if (lidars < 0).any():
            samples = [sample for chain in self.scenes.values() for sample in chain]
            raise UserError(
                f"sample_data.json: sample {samples[int(lidars.argmin())]} must have a {LIDAR} "
                "keyframe, got none; the tables are incomplete, unpack the metadata archive again",
            )
        return lidars

    def T_world_sensor(self, rows: np.ndarray, ego: str, sensor: str) -> Transform:
        """Return where a sensor was [rows, 4, 4], through the ego pose at each shot's own time."""
        T_ego_sensor = self.mounts.T_ego_sensor[self.mount_rows[rows]]
        T_world_ego = self.ego_poses.T_world_ego[self.ego_poses.rows[rows]]
        return Transform("world", ego, T_world_ego) @ Transform(ego, sensor, T_ego_sensor)


def load_tables(folder: Path, cameras: tuple[str, ...]) -> Tables:
    """Return what a reader needs of the tables in `folder`.

    Raises:
        UserError: a table is missing, broken or dangling.
    """
    mounts = _mounts(folder, (LIDAR, *cameras))
    shots, mount_rows = _shots(folder / "sample_data.json", mounts)
    labels = _paths_by_scan(folder / "lidarseg.json")
    for path in labels.values():
        check(
            Path(path).parent.name == folder.name,
            f"{folder / 'lidarseg.json'}: filename must lie in lidarseg/{folder.name}/, got "
            f"'{path}'; unpack the archive of this version",
        )
    if labels:
        numbering(folder / "category.json")  # refuse a foreign numbering now, not at every frame
    scenes = _scenes(folder)
    return Tables(
        scenes=scenes,
        shots=shots,
        mounts=mounts,
        mount_rows=mount_rows,
        keyframes=_keyframes(scenes, shots, mounts.slots[mount_rows], 1 + len(cameras)),
        ego_poses=load_ego_poses(folder / "ego_pose.json", shots),
        label_paths=labels,
        instance_paths=_paths_by_scan(folder / "panoptic.json"),
    )


@functools.cache
def numbering(path: Path) -> np.ndarray:
    """Return the table [256] uint16 from the installed lidarseg ids to the manifest's, by name.

    An id that category.json lacks stays what it is, so that checks can name it.

    Two numberings of ids 25..30 are in circulation (category.json and the devkit's annotator page).

    Raises:
        UserError: category.json has no `index`, or names a category that the manifest lacks.
    """
    ids = {name: raw for raw, name in load_manifest("nuscenes").raw_names.items()}
    table = np.arange(256, dtype=np.uint16)
    for row in read_records(path, ("name",)):
        check(
            "index" in row,
            f"{path}: category '{row['name']}' must have 'index', got none; "
            "unpack the nuScenes-lidarseg archive over the metadata, it replaces this file",
        )
        number = row["index"]
        check(
            isinstance(number, int) and 0 <= number < len(table),
            f"{path}: category '{row['name']}' must have 'index' of 0..255, got {number}; "
            "unpack the nuScenes-lidarseg archive over the metadata, it replaces this file",
        )
        table[number] = follow(
            ids, row["name"], "data_manifests/nuscenes", path.stem, row["name"], "name"
        )
    return table


def _mounts(folder: Path, wanted: Sequence[str]) -> Mounts:
    path = folder / "calibrated_sensor.json"
    fields = ("token", "sensor_token", "rotation", "translation", "camera_intrinsic")
    rows = read_records(path, fields)
    sensors = read_records(folder / "sensor.json", ("token", "channel"))
    channels = {row["token"]: row["channel"] for row in sensors}
    names = [
        follow(
            channels, row["sensor_token"], "sensor", "calibrated_sensor", row["token"],
            "sensor_token",
        )
        for row in rows
    ]  # fmt: skip
    slot = {name: k for k, name in enumerate(wanted)}
    batch = batch_of_records(rows, pa.schema([("token", pa.string()), *RIGID]), path)
    return Mounts(
        tokens=pa.chunked_array([batch["token"]]),
        T_ego_sensor=rigid_of(batch, path),
        intrinsics=[row["camera_intrinsic"] for row in rows],
        slots=np.array([slot.get(name, -1) for name in names], np.int64),
    )


def _shots(path: Path, mounts: Mounts) -> tuple[pa.Table, np.ndarray]:
    """Return the kept rows of sample_data, and the row of each one's mount."""
    choice = Choice((_MOUNT, "is_key_frame"), _keep_shots(mounts))
    found = pa.Table.from_batches(stream_columns(path, _SHOT, choice), _SHOT)
    rows = rows_of(mounts.tokens, found[_MOUNT])
    for lost in np.flatnonzero(rows < 0)[:1]:
        token, shot = found[_MOUNT][int(lost)].as_py(), found["token"][int(lost)].as_py()
        follow({}, token, "calibrated_sensor", "sample_data", shot, _MOUNT)
    slots = mounts.slots[rows]
    kept = (slots == 0) | ((slots > 0) & found["is_key_frame"].to_numpy())
    if not kept.all():  # records that were read because they are spelled oddly
        found, rows = found.filter(pa.array(kept)), rows[kept]
    limit = np.iinfo(np.int64).max // 1000
    for row in np.flatnonzero(np.abs(found["timestamp"].to_numpy()) > limit)[:1]:
        raise UserError(
            f"sample_data.json record {found['token'][int(row)]}: timestamp must be in "
            f"microseconds, got {found['timestamp'][int(row)]}; unpack the metadata archive again",
        )
    columns = {name: found[name] for name in found.column_names if name != _MOUNT}
    whole = [name for name in columns if name not in _USED_ONCE]
    return pa.table(columns | {name: found[name].combine_chunks() for name in whole}), rows


def _keep_shots(mounts: Mounts) -> Callable[[np.ndarray], np.ndarray]:
    """Return the rule: scans, keyframes of wanted cameras, and rows of mounts that nobody knows."""
    hashes = hash_values(mounts.tokens.combine_chunks())
    cameras, unwanted = HashSet(hashes[mounts.slots > 0]), HashSet(hashes[mounts.slots < 0])
    (no_key,) = hash_values([False])

    def keep(found: np.ndarray) -> np.ndarray:
        between = cameras.holds(found[:, 0]) & (found[:, 1] == no_key)
        return ~(between | unwanted.holds(found[:, 0]))

    return keep


def _keyframes(
    scenes: dict[str, list[str]], shots: pa.Table, slots: np.ndarray, num_slots: int
) -> np.ndarray:
    samples = pa.array([sample for chain in scenes.values() for sample in chain], pa.string())
    keys = np.flatnonzero(shots["is_key_frame"].to_numpy())
    places = rows_of(samples, shots["sample_token"].filter(shots["is_key_frame"]))
    keys, places = keys[places >= 0], places[places >= 0]
    found = np.full((len(samples), num_slots), -1, np.int64)
    found[places, slots[keys]] = keys
    return found


def _scenes(folder: Path) -> dict[str, list[str]]:
    samples = {row["token"]: row for row in read_records(folder / "sample.json", ("token", "next"))}
    scenes: dict[str, list[str]] = {}
    for scene in read_records(folder / "scene.json", ("token", "name", "first_sample_token")):
        field, origin, record = "first_sample_token", "scene", scene
        chain: dict[str, None] = {}
        while record[field]:
            token = record[field]
            check(
                token not in chain,
                f"sample.json record {token}: next must lead on in time, got a circle in "
                f"{scene['name']}; unpack the metadata archive again",
            )
            chain[token] = None
            record = follow(samples, token, "sample", origin, record["token"], field)
            field, origin = "next", "sample"
        scenes[scene["name"]] = list(chain)
    return scenes


def _paths_by_scan(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    rows = read_records(path, ("sample_data_token", "filename"))
    return {row["sample_data_token"]: row["filename"] for row in rows}

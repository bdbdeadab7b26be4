"""The tables of a nuScenes version folder, thinned while they are read.

In: a folder of JSON tables. Out: scans and keyframe images by token, with mounts and ego poses;
boxes, maps, radar and camera images between keyframes are never kept.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.ego_poses import EgoPoses, load_ego_poses, rigid_of_records
from pipeline.errors import UserError, check
from pipeline.geometry import Transform
from pipeline.json_scan import hash_values
from pipeline.json_tables import Choice, Record, follow, read_records, stream_records
from pipeline.manifest import load_manifest

LIDAR = "LIDAR_TOP"


class Shot(NamedTuple):
    """One row of sample_data: a scan, or an image of a keyframe (there are 545,000)."""

    token: str
    ego_pose: str
    sensor: str  # token of calibrated_sensor
    path: str
    t_ns: int
    height: int
    width: int
    next: str  # token of the same sensor's next row, '' at the end


@dataclass(frozen=True)
class Tables:
    """What is kept, by token."""

    scenes: dict[str, list[str]]  # name -> sample tokens in time order, in the order of scene.json
    intrinsics: dict[str, list]  # calibrated_sensor -> 3x3, [] for the LiDAR
    mounts: dict[str, np.ndarray]  # calibrated_sensor -> T_ego_sensor
    scans: dict[str, Shot]  # every LiDAR row
    keyframes: dict[str, dict[str, Shot]]  # sample -> channel -> row
    ego_poses: EgoPoses
    label_paths: dict[str, str]  # by LiDAR token
    instance_paths: dict[str, str]

    def lidar_of(self, sample: str) -> Shot:
        """Return the scan of a keyframe.

        Raises:
            UserError: it has none.
        """
        shot = self.keyframes.get(sample, {}).get(LIDAR)
        if shot is None:
            raise UserError(
                f"sample_data.json: sample {sample} must have a {LIDAR} keyframe, got none; "
                "the tables are incomplete, unpack the metadata archive again"
            )
        return shot

    def T_world_sensor(self, shots: Sequence[Shot], ego: str, sensor: str) -> Transform:
        """Return where a sensor was [shots, 4, 4], through the ego pose at each shot's own time."""
        rows = [self.ego_poses.rows[shot.ego_pose] for shot in shots]
        T_ego_sensor = [self.mounts[shot.sensor] for shot in shots]
        T_world_ego = Transform("world", ego, self.ego_poses.T_world_ego[rows].reshape(-1, 4, 4))
        return T_world_ego @ Transform(ego, sensor, np.reshape(T_ego_sensor, (-1, 4, 4)))


def load_tables(folder: Path, cameras: tuple[str, ...]) -> Tables:
    """Return what a reader needs of the tables in `folder`.

    Raises:
        UserError: a table is missing, broken or dangling.
    """
    path = folder / "calibrated_sensor.json"
    fields = ("token", "sensor_token", "rotation", "translation", "camera_intrinsic")
    sensors = {row["token"]: row for row in read_records(path, fields)}
    scans, keyframes = _shots(folder, _channels(folder, sensors), {LIDAR, *cameras})
    labels = _paths_by_scan(folder / "lidarseg.json")
    for path in labels.values():
        check(
            Path(path).parent.name == folder.name,
            f"{folder / 'lidarseg.json'}: filename must lie in lidarseg/{folder.name}/, got "
            f"'{path}'; unpack the archive of this version",
        )
    if labels:
        numbering(folder / "category.json")  # refuse a foreign numbering now, not at every frame
    return Tables(
        scenes=_scenes(folder),
        intrinsics={token: row["camera_intrinsic"] for token, row in sensors.items()},
        mounts=dict(zip(sensors, rigid_of_records([*sensors.values()], path), strict=True)),
        scans=scans,
        keyframes=keyframes,
        ego_poses=load_ego_poses(folder / "ego_pose.json", _needed(scans, keyframes)),
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


def _channels(folder: Path, sensors: dict[str, Record]) -> dict[str, str]:
    rows = read_records(folder / "sensor.json", ("token", "channel"))
    channels = {row["token"]: row["channel"] for row in rows}
    return {
        token: follow(
            channels, row["sensor_token"], "sensor", "calibrated_sensor", token, "sensor_token"
        )
        for token, row in sensors.items()
    }


def _shots(
    folder: Path, channels: dict[str, str], wanted: set[str]
) -> tuple[dict[str, Shot], dict[str, dict[str, Shot]]]:
    scans: dict[str, Shot] = {}
    keyframes: dict[str, dict[str, Shot]] = {}
    link = "calibrated_sensor_token"
    fields = (
        "token",
        "sample_token",
        "ego_pose_token",
        link,
        "filename",
        "timestamp",
        "is_key_frame",
    )
    choice = Choice((link, "is_key_frame"), _keep_shots(channels, wanted))
    for rows in stream_records(folder / "sample_data.json", (*fields, "next"), choice):
        for row in rows:
            channel = channels.get(row[link]) or follow(
                channels, row[link], "calibrated_sensor", "sample_data", row["token"], link
            )
            if channel not in wanted or not (row["is_key_frame"] or channel == LIDAR):
                continue
            shot = Shot(
                token=row["token"],
                ego_pose=row["ego_pose_token"],
                sensor=row[link],
                path=row["filename"],
                t_ns=row["timestamp"] * 1000,
                height=row.get("height") or 0,
                width=row.get("width") or 0,
                next=row["next"],
            )
            if channel == LIDAR:
                scans[shot.token] = shot
            if row["is_key_frame"]:
                keyframes.setdefault(row["sample_token"], {})[channel] = shot
    return scans, keyframes


def _keep_shots(channels: dict[str, str], wanted: set[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the rule: scans, keyframes of wanted cameras, and rows of mounts that nobody knows."""
    hashes = hash_values(list(channels))
    unwanted = [channel not in wanted for channel in channels.values()]
    camera = [channel in wanted and channel != LIDAR for channel in channels.values()]
    (no_key,) = hash_values([False])

    def keep(found: np.ndarray) -> np.ndarray:
        between = np.isin(found[:, 0], hashes[camera]) & (found[:, 1] == no_key)
        return ~(between | np.isin(found[:, 0], hashes[unwanted]))

    return keep


def _needed(scans: dict[str, Shot], keyframes: dict[str, dict[str, Shot]]) -> dict[str, str]:
    """Return the ego poses of kept shots, each with the token of a shot that wants it."""
    images = (shot for shots in keyframes.values() for shot in shots.values())
    return {shot.ego_pose: shot.token for shot in itertools.chain(scans.values(), images)}


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

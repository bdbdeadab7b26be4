"""The tables of a nuScenes version folder, thinned while they are read.

In: a folder of JSON tables. Out: scans and keyframe images by token, with mounts and ego poses;
boxes, maps, radar and camera images between keyframes are never kept.
"""

import functools
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError, check
from pipeline.geometry import Transform, rigid, rotation_from_quaternion
from pipeline.json_tables import Record, follow, read_records, stream_records
from pipeline.manifest import load_manifest

LIDAR = "LIDAR_TOP"


@dataclass(frozen=True, slots=True)
class Shot:
    """One row of sample_data: a scan, or an image of a keyframe."""

    token: str
    ego_pose: str
    sensor: str  # token of calibrated_sensor
    path: str
    t_ns: int
    height: int
    width: int
    next: str  # token of the same sensor's next row, '' at the end


@dataclass(frozen=True)
class EgoPoses:
    """Ego poses of the kept shots in one flat array; 600,000 records would take 600 MB."""

    rows: dict[str, int]
    values: array  # 7 numbers a row: rotation wxyz, translation m

    def matrix(self, token: str) -> np.ndarray:
        """Return T_world_ego [4, 4] float64."""
        start = 7 * self.rows[token]
        return _rigid(
            self.values[start : start + 4], self.values[start + 4 : start + 7], "ego_pose", token
        )


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

    def T_world_sensor(self, shot: Shot, ego: str, sensor: str) -> Transform:
        """Return where a sensor was, through the ego pose at the shot's own time."""
        T_world_ego = Transform("world", ego, self.ego_poses.matrix(shot.ego_pose))
        return T_world_ego @ Transform(ego, sensor, self.mounts[shot.sensor])


def load_tables(folder: Path, cameras: tuple[str, ...]) -> Tables:
    """Return what a reader needs of the tables in `folder`.

    Raises:
        UserError: a table is missing, broken or dangling.
    """
    sensors = {
        row["token"]: row
        for row in read_records(
            folder / "calibrated_sensor.json",
            ("token", "sensor_token", "rotation", "translation", "camera_intrinsic"),
        )
    }
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
        mounts={
            token: _rigid(row["rotation"], row["translation"], "calibrated_sensor", token)
            for token, row in sensors.items()
        },
        scans=scans,
        keyframes=keyframes,
        ego_poses=_ego_poses(folder, scans, keyframes),
        label_paths=labels,
        instance_paths=_paths_by_scan(folder / "panoptic.json"),
    )


@functools.cache
def numbering(path: Path) -> np.ndarray:
    """Return the table [256] uint16 from the installed lidarseg ids to the manifest's, by name.

    Two numberings of ids 25..30 are in circulation (category.json and the devkit's annotator page).

    Raises:
        UserError: category.json has no `index`, or names a category that the manifest lacks.
    """
    ids = {name: raw for raw, name in load_manifest("nuscenes").raw_names.items()}
    table = np.zeros(256, np.uint16)
    for row in read_records(path, ("name",)):
        check(
            "index" in row,
            f"{path}: category '{row['name']}' must have 'index', got none; "
            "unpack the nuScenes-lidarseg archive over the metadata, it replaces this file",
        )
        table[row["index"]] = follow(
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
    for rows in stream_records(folder / "sample_data.json", (*fields, "next")):
        for row in rows:
            channel = follow(
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


def _ego_poses(
    folder: Path, scans: dict[str, Shot], keyframes: dict[str, dict[str, Shot]]
) -> EgoPoses:
    kept = [*scans.values(), *(shot for shots in keyframes.values() for shot in shots.values())]
    needed = {shot.ego_pose for shot in kept}
    poses = EgoPoses({}, array("d"))
    for rows in stream_records(folder / "ego_pose.json", ("token", "rotation", "translation")):
        for row in rows:
            if row["token"] in needed:
                poses.rows[row["token"]] = len(poses.rows)
                poses.values.extend(row["rotation"])
                poses.values.extend(row["translation"])
    check(
        len(poses.values) == 7 * len(poses.rows),
        f"{folder / 'ego_pose.json'}: records must have 4 numbers in rotation, 3 in translation, "
        f"got {len(poses.values)} numbers in {len(poses.rows)} records; unpack the archive again",
    )
    for shot in kept:
        follow(poses.rows, shot.ego_pose, "ego_pose", "sample_data", shot.token, "ego_pose_token")
    return poses


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


def _rigid(rotation_wxyz: list, translation_m: list, table: str, token: str) -> np.ndarray:
    try:
        return rigid(rotation_from_quaternion(rotation_wxyz), translation_m)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{table}.json record {token}: rotation and translation must be 4 and 3 numbers, "
            f"got {error}; unpack the metadata archive again"
        ) from None

"""The tables of a nuScenes v1.0 release, collected while the drives are recorded.

Schema: nutonomy/nuscenes-devkit, docs/schema_nuscenes.md (Apache-2.0). Tokens are hashes of what
they name, so the same seed gives the same tokens.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import orjson

from pipeline.files import write_atomically
from pipeline.geometry import rotation_from_quaternion
from pipeline.synthetic.nuscenes_names import (
    ATTRIBUTES,
    CATEGORIES,
    MAP_FILE,
    RELEASE,
    VISIBILITY,
)
from pipeline.synthetic.scene import Drive
from pipeline.synthetic.sensors import CAMERAS, LIDAR, Mount, quaternion_from_yaw
from pipeline.synthetic.world import annotation_box, place_at


@dataclass
class Tables:
    """Records by table name; `seed` keeps the tokens of different cities apart."""

    seed: int
    records: dict[str, list[dict]] = field(default_factory=dict)

    def token(self, kind: str, *place: object) -> str:
        """Return the 32 hexadecimal digits that stand for a thing of a kind at a place."""
        text = "/".join(["selkie-city", str(self.seed), kind, *(str(part) for part in place)])
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    def add(self, table: str, token: str, **values: object) -> str:
        """Append a record and return its token."""
        self.records.setdefault(table, []).append({"token": token, **values})
        return token

    def link(self, table: str, first: int, key: tuple[str, ...]) -> None:
        """Fill prev and next of the records from `first` on, along equal values of `key`."""
        last: dict[tuple, dict] = {}
        for record in self.records.get(table, [])[first:]:
            group = tuple(record[name] for name in key)
            before = last.get(group)
            record["prev"], record["next"] = before["token"] if before else "", ""
            if before:
                before["next"] = record["token"]
            last[group] = record

    def write(self, root: Path, splits: dict[str, list[str]]) -> None:
        """Write every table, the splits and the map mask below `root`."""
        folder = root / RELEASE
        for name, records in self.records.items():
            write_atomically(folder / f"{name}.json", orjson.dumps(records, option=_INDENT))
        write_atomically(folder / "splits.json", orjson.dumps(splits, option=_INDENT))
        mask = cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1]
        write_atomically(root / MAP_FILE, mask.tobytes())


_INDENT = orjson.OPT_INDENT_2


def add_fixed_tables(tables: Tables) -> None:
    """Add what does not depend on the drives: sensors, categories, attributes, visibility."""
    for channel in (LIDAR, *CAMERAS):
        modality = "lidar" if channel == LIDAR else "camera"
        token = tables.token("sensor", channel)
        tables.add("sensor", token, channel=channel, modality=modality)
    for index, name in enumerate(CATEGORIES):
        token = tables.token("category", name)
        tables.add("category", token, name=name, description="", index=index)
    for name in ATTRIBUTES:
        tables.add("attribute", tables.token("attribute", name), name=name, description="")
    for number, level in enumerate(VISIBILITY):
        # Here it stands for the number of LiDAR points: below 3, 8, 20, and more.
        tables.add("visibility", str(number + 1), level=level, description="by LiDAR points")
    for name in ("instance", "sample_annotation"):
        tables.records[name] = []


def add_scene(tables: Tables, drive: Drive, num_keyframes: int, rig: list[Mount]) -> None:
    """Add a drive's log, scene, samples' frame tokens and calibration."""
    log = tables.add(
        "log",
        tables.token("log", drive.name),
        logfile=drive.name,
        vehicle="selkie",
        date_captured="2020-09-13",
        location=f"synthetic-{drive.split}",
    )
    samples = [tables.token("sample", drive.name, k) for k in range(num_keyframes)]
    tables.add(
        "scene",
        tables.token("scene", drive.name),
        log_token=log,
        nbr_samples=num_keyframes,
        first_sample_token=samples[0],
        last_sample_token=samples[-1],
        name=drive.name,
        description="made-up street",
    )
    for mount in rig:
        tables.add(
            "calibrated_sensor",
            tables.token("calibrated_sensor", drive.name, mount.channel),
            sensor_token=tables.token("sensor", mount.channel),
            translation=mount.translation.tolist(),
            rotation=mount.rotation_wxyz.tolist(),
            camera_intrinsic=[] if mount.K is None else mount.K.tolist(),
        )


def add_map(tables: Tables) -> None:
    """Add the one map, which every log uses (an empty mask: no test of ours reads it)."""
    logs = [record["token"] for record in tables.records["log"]]
    token = tables.token("map")
    tables.add("map", token, log_tokens=logs, category="semantic_prior", filename=MAP_FILE)


@dataclass(frozen=True)
class Shot:
    """One file of one sensor."""

    channel: str
    sample: int  # keyframe it belongs to
    timestamp_us: int
    is_key_frame: bool
    filename: str  # relative to the root
    height: int  # 0 for the LiDAR
    width: int


def add_shot(tables: Tables, drive: Drive, shot: Shot, ego: tuple[np.ndarray, np.ndarray]) -> str:
    """Add the sample_data and ego_pose of a file and return their common token.

    Args:
        tables: receives the records.
        drive: the drive.
        shot: the file.
        ego: translation [3] in the scene's coordinates and rotation [4] (w, x, y, z).
    """
    token = tables.token("sample_data", drive.name, shot.channel, shot.timestamp_us)
    translation = ego[0] + np.array([*drive.origin, 0.0])
    tables.add(
        "ego_pose",
        token,
        timestamp=shot.timestamp_us,
        rotation=ego[1].tolist(),
        translation=translation.tolist(),
    )
    return tables.add(
        "sample_data",
        token,
        sample_token=tables.token("sample", drive.name, shot.sample),
        ego_pose_token=token,
        calibrated_sensor_token=tables.token("calibrated_sensor", drive.name, shot.channel),
        timestamp=shot.timestamp_us,
        fileformat="pcd" if shot.channel == LIDAR else "jpg",
        is_key_frame=shot.is_key_frame,
        height=shot.height,
        width=shot.width,
        filename=shot.filename,
        prev="",
        next="",
    )


def add_boxes(tables: Tables, drive: Drive, sample: int, time_s: float, hits: np.ndarray) -> None:
    """Add the boxes of the objects that the keyframe's scan hits.

    Args:
        tables: receives sample_annotation records.
        drive: the drive.
        sample: number of the keyframe.
        time_s: of the scan.
        hits: [pieces] int, LiDAR points by piece.
    """
    for thing, pieces in zip(drive.scene.things, drive.scene.thing_pieces, strict=True):
        piece = pieces[0]
        if drive.pieces.instances[piece] == 0 or hits[piece] == 0:
            continue
        position, yaw = place_at(drive.scene.street, thing, time_s)
        middle, size_wlh = annotation_box(thing)
        rotation = quaternion_from_yaw(yaw)
        center = rotation_from_quaternion(rotation) @ middle + position
        count = int(hits[piece])
        attribute = [tables.token("attribute", thing.attribute)] if thing.attribute else []
        tables.add(
            "sample_annotation",
            tables.token("annotation", drive.name, sample, piece),
            sample_token=tables.token("sample", drive.name, sample),
            instance_token=tables.token("instance", drive.name, piece),
            visibility_token=str(1 + sum(count >= least for least in (3, 8, 20))),
            attribute_tokens=attribute,
            translation=(center + np.array([*drive.origin, 0.0])).tolist(),
            size=size_wlh.tolist(),
            rotation=rotation.tolist(),
            num_lidar_pts=count,
            num_radar_pts=0,
            prev="",
            next="",
        )


def add_instances(tables: Tables, drive: Drive, first: int) -> None:
    """Link the annotations from row `first` on and add the instances they show."""
    tables.link("sample_annotation", first, ("instance_token",))
    by_instance: dict[str, list[str]] = {}
    for record in tables.records["sample_annotation"][first:]:
        by_instance.setdefault(record["instance_token"], []).append(record["token"])
    for piece, category in enumerate(drive.pieces.categories):
        token = tables.token("instance", drive.name, piece)
        if token not in by_instance:
            continue
        shown = by_instance[token]
        tables.add(
            "instance",
            token,
            category_token=tables.token("category", CATEGORIES[category]),
            nbr_annotations=len(shown),
            first_annotation_token=shown[0],
            last_annotation_token=shown[-1],
        )

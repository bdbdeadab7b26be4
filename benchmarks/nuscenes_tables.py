"""Tables of a made-up nuScenes release of any size, in the JSON of the real one.

In: numbers of samples and boxes. Out: a folder that the devkit opens and our reader indexes: per
sample 77 rows of sample_data and ego_pose, keyframe scans as sparse files, no images.
"""

import hashlib
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import orjson

from pipeline.manifest import load_manifest
from pipeline.synthetic.sensors import CAMERAS

VERSION = "v1.0-trainval"
NUM_SCENES, NUM_SAMPLES = 850, 34_149
RADARS = ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "BACK_LEFT", "BACK_RIGHT")
SCAN_BYTES = 34_688 * 20
INTERVAL_US = 500_000
SHOTS = {  # channel -> rows per sample, as in the real tables (77.05 a sample)
    "LIDAR_TOP": 10,
    **dict.fromkeys(CAMERAS, 6),
    **{f"RADAR_{name}": 7 if name == "FRONT" else 6 for name in RADARS},
}


class Table:
    """A JSON list of records, written record by record."""

    def __init__(self, folder: Path, name: str) -> None:
        """Open `<folder>/<name>.json`."""
        self._file: TextIO = (folder / f"{name}.json").open("w")
        self._between = "[\n"

    def add(self, **record: object) -> None:
        """Append a record."""
        self._file.write(self._between + orjson.dumps(record, option=orjson.OPT_INDENT_2).decode())
        self._between = ",\n"

    def close(self) -> None:
        """End the list."""
        self._file.write("\n]" if self._between != "[\n" else "[]")
        self._file.close()


def token(*place: object) -> str:
    """Return 32 hexadecimal digits, as nuScenes' tokens are."""
    return hashlib.md5("/".join(map(str, place)).encode(), usedforsecurity=False).hexdigest()


def write_release(root: Path, num_samples: int, num_boxes: int = 0) -> None:
    """Write the tables and sparse scans of a made-up release, with so many boxes in each sample."""
    folder = root / VERSION
    folder.mkdir(parents=True)
    (root / "samples" / "LIDAR_TOP").mkdir(parents=True)
    names = "sensor calibrated_sensor scene sample sample_data ego_pose category attribute "
    names += "visibility instance sample_annotation log map"
    tables = {name: Table(folder, name) for name in names.split()}
    for channel in SHOTS:
        modality = channel.split("_")[0].lower().replace("cam", "camera")
        tables["sensor"].add(token=token(channel), channel=channel, modality=modality)
    tables["log"].add(token="log", logfile="", vehicle="", date_captured="", location="")
    tables["category"].add(token="car", name="vehicle.car", description="", index=0)
    tables["map"].add(token="map", log_tokens=["log"], category="", filename="mask.png")
    cv2.imwrite(str(root / "mask.png"), np.zeros((64, 64), np.uint8))
    lists = load_manifest("nuscenes").scene_lists
    scenes = sorted({*lists["train"], *lists["val"]})
    rng = np.random.default_rng(0)
    bounds = np.linspace(0, num_samples, len(scenes) + 1).round().astype(int)
    for scene, count in zip(scenes, np.diff(bounds).tolist(), strict=True):
        if count:
            _write_scene(root, tables, scene, count, rng)
            _write_boxes(tables, scene, count, num_boxes)
    for table in tables.values():
        table.close()


def _write_scene(
    root: Path, tables: dict[str, Table], scene: str, count: int, rng: np.random.Generator
) -> None:
    samples = [token(scene, k) for k in range(count)]
    ends = {"first_sample_token": samples[0], "last_sample_token": samples[-1]}
    tables["scene"].add(
        token=token(scene), log_token="log", nbr_samples=count, name=scene, description="", **ends
    )
    start_us = 1_532_402_927_000_000 + 60_000_000 * int(scene.split("-")[1])
    for k, sample in enumerate(samples):
        tables["sample"].add(
            token=sample,
            timestamp=start_us + INTERVAL_US * k,
            prev=samples[k - 1] if k else "",
            next=samples[k + 1] if k + 1 < count else "",
            scene_token=token(scene),
        )
    for channel, per_sample in SHOTS.items():
        mount, is_camera = token(scene, channel, "mount"), channel.startswith("CAM")
        K = [[1266.4, 0.0, 816.3], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]] if is_camera else []
        tables["calibrated_sensor"].add(
            token=mount,
            sensor_token=token(channel),
            translation=[1.70079118954, 0.0159456324149, 1.51095763913],
            rotation=[0.4998015, -0.5030316, 0.4997798, -0.4973737],
            camera_intrinsic=K,
        )
        numbers = rng.normal(size=(per_sample * count, 5)).round(12).tolist()
        for k, drawn in enumerate(numbers):
            _write_shot(root, tables, (scene, channel, k), per_sample, samples, start_us, drawn)


def _write_boxes(tables: dict[str, Table], scene: str, count: int, num_boxes: int) -> None:
    """Add objects that are seen in every sample of a scene."""
    for k in range(num_boxes):
        instance = token(scene, "instance", k)
        names = [token(instance, sample) for sample in range(count)]
        ends = {"first_annotation_token": names[0], "last_annotation_token": names[-1]}
        tables["instance"].add(token=instance, category_token="car", nbr_annotations=count, **ends)
        for sample, name in enumerate(names):
            tables["sample_annotation"].add(
                token=name,
                sample_token=token(scene, sample),
                instance_token=instance,
                visibility_token="4",
                attribute_tokens=[],
                translation=[373.256 + sample, 1130.419 + k, 0.8],
                size=[0.621, 0.669, 1.642],
                rotation=[0.9831098797903927, 0.0, 0.0, -0.18301629506281616],
                prev=names[sample - 1] if sample else "",
                next=names[sample + 1] if sample + 1 < count else "",
                num_lidar_pts=1,
                num_radar_pts=0,
            )


def _write_shot(
    root: Path,
    tables: dict[str, Table],
    place: tuple[str, str, int],
    per_sample: int,
    samples: list[str],
    start_us: int,
    drawn: list[float],
) -> None:
    """Add one row of sample_data and its ego_pose; a keyframe's scan becomes a sparse file."""
    scene, channel, k = place
    time_us = start_us + INTERVAL_US * k // per_sample
    is_key = k % per_sample == 0
    suffix = {"L": "pcd.bin", "C": "jpg", "R": "pcd"}[channel[0]]
    kind = "samples" if is_key else "sweeps"
    name = f"{kind}/{channel}/n015-2018-07-24-11-22-45+0800__{channel}__{time_us}.{suffix}"
    num_shots = per_sample * len(samples)
    tables["sample_data"].add(
        token=token(*place),
        sample_token=samples[k // per_sample],
        ego_pose_token=token(*place, "ego"),
        calibrated_sensor_token=token(scene, channel, "mount"),
        timestamp=time_us,
        fileformat=suffix.split(".")[0],
        is_key_frame=is_key,
        height=900 if suffix == "jpg" else 0,
        width=1600 if suffix == "jpg" else 0,
        filename=name,
        prev=token(scene, channel, k - 1) if k else "",
        next=token(scene, channel, k + 1) if k + 1 < num_shots else "",
    )
    tables["ego_pose"].add(
        token=token(*place, "ego"),
        timestamp=time_us,
        rotation=[0.5720320396729045, *drawn[:3]],
        translation=[411.3039349319818 + drawn[3], 1180.8903791765097 + drawn[4], 0.0],
    )
    if is_key and channel == "LIDAR_TOP":
        with (root / name).open("wb") as file:
            file.truncate(SCAN_BYTES)

"""The index of full-size nuScenes beside `NuScenes(...)` of the devkit: time and memory.

    python -m benchmarks.nuscenes_index [--samples 34149] [--boxes 0] [--folder DIR] [--rounds 1]

Tables are made up at the size of v1.0-trainval: 850 scenes with the real names, 34,149 samples, per
sample 77 rows of sample_data and ego_pose (10 scans, 6 images of each of 6 cameras, 31 radar
sweeps), and keyframe scans as sparse files. Without `--boxes 34` a sample (v1.0-trainval has 34.15)
the devkit is spared 1.2 million records that the index never opens. Each side runs in a process of
its own, one after the other; memory is the process's peak (imports included). Tables take 2.1 GB of
disk, 0.7 GB more with boxes.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import orjson

from benchmarks.peers import DEVKIT
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
DEVKIT_SCRIPT = """
import json, resource, sys, time
from nuscenes import NuScenes
wall, cpu = time.perf_counter(), time.process_time()
found = NuScenes("v1.0-trainval", sys.argv[1], verbose=False)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"rows": len(found.sample), "wall": wall, "cpu": cpu, "peak": peak}))
"""
OURS = """
import json, os, resource, sys, time
from pathlib import Path
from pipeline.datasets.table import load_reader
from pipeline.index import build_index, read_index, write_index
what, root, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
if what == "build":
    load_reader("nuscenes")  # imports count on neither side
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
before = resident()
wall, cpu = time.perf_counter(), time.process_time()
if what == "build":
    index = build_index("nuscenes", root, "v1.0-trainval")
    write_index(path, index)
else:
    index = read_index(path)
    index.frame(len(index) - 1)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"rows": len(index), "wall": wall, "cpu": cpu, "peak": peak, "before": before,
                  "after": resident(), "size": os.path.getsize(path) / 2**20}))
"""


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


def measure(what: str, root: Path, path: Path) -> dict[str, float]:
    """Return what a process of ours says that builds or reads the index."""
    words = [sys.executable, "-c", OURS, what, str(root), str(path)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=NUM_SAMPLES)
    parser.add_argument("--boxes", type=int, default=0, help="in each sample")
    parser.add_argument("--folder", type=Path, help="keep and reuse the tables here")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = (given.folder or Path(scratch)) / "nuscenes"
        if not root.exists():
            write_release(root, given.samples, given.boxes)
        path = Path(scratch) / "index.parquet"
        sides: dict[str, list[dict[str, float]]] = {"NuScenes(...)": [], "index": []}
        measure("build", root, path)  # compiles
        for _ in range(given.rounds):
            sides["NuScenes(...)"].append(json.loads(DEVKIT.run(DEVKIT_SCRIPT, str(root))))
            sides["index"].append(measure("build", root, path))
        read = measure("read", root, path)
    best = {name: min(found, key=lambda one: one["cpu"]) for name, found in sides.items()}
    for name, one in best.items():
        text = f"{one['wall']:6.1f} s, {one['cpu']:6.1f} s CPU, peak {one['peak']:6.0f} MB"
        print(f"{name:14} {text}, {one['rows']} samples")
    theirs, ours = best.values()
    print(
        f"ratio {theirs['wall'] / ours['wall']:.1f} in time, {theirs['cpu'] / ours['cpu']:.1f} in "
        f"CPU time (reach 5), {theirs['peak'] / ours['peak']:.1f} in memory (reach 4)"
    )
    print(
        f"reading back {read['size']:.0f} MB: {read['wall']:.2f} s, {read['cpu']:.2f} s CPU "
        f"(under 1), peak {read['peak']:.0f} MB of which imports {read['before']:.0f}, resident "
        f"after {read['after']:.0f} (under 300)"
    )


if __name__ == "__main__":
    main()

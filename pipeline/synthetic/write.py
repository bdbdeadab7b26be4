"""Writes a made-up city as a nuScenes v1.0 release, so that the ordinary reader reads it.

Beside the release: `city.json` (size, seed, LiDAR, generator version), `oracle/<camera token>.png`,
the true segment of every pixel (16 bit, 1 .. n within the image, sky included), and `<token>.json`
listing id, raw category (-1 = sky) and whether the segment is a countable object.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import orjson

from pipeline.errors import UserError, unknown_name
from pipeline.files import write_atomically
from pipeline.progress import Progress
from pipeline.synthetic.lidars import DEFAULT, LIDARS, Lidar
from pipeline.synthetic.making_folder import making_folder
from pipeline.synthetic.nuscenes_names import RELEASE
from pipeline.synthetic.nuscenes_tables import (
    Shot,
    Tables,
    add_boxes,
    add_fixed_tables,
    add_instances,
    add_map,
    add_scene,
    add_shot,
)
from pipeline.synthetic.scene import Drive, draw_drive
from pipeline.synthetic.sensors import LIDAR, Mount, draw_rig, ego_pose, take_picture, take_scan

VERSION = 1  # bump by hand when the same seed gives another city
JPEG_QUALITY = 92
KEYFRAME_US = 500_000
START_US = 1_600_000_000_000_000
SCENE_US = 60_000_000
JITTER_US = 400


@dataclass(frozen=True)
class Size:
    """How much to make."""

    num_train: int  # scenes
    num_val: int
    train_keyframes: int  # per scene, 2 Hz
    val_keyframes: int
    width: int  # of the images, pixels
    height: int
    num_columns: int  # LiDAR rays per ring and turn
    num_sweeps: int  # scans per keyframe interval, the keyframe's included; nuScenes has 10


SIZES = {
    "tiny": Size(1, 1, 4, 4, 208, 112, 360, 5),
    "demo": Size(6, 2, 8, 8, 416, 234, 720, 5),
    "full": Size(28, 8, 16, 10, 416, 234, 900, 5),
}


def synthesize(root: Path, size: str, seed: int, lidar: str = DEFAULT) -> None:
    """Write a made-up city to `root`; nothing happens where the same one is complete already.

    Args:
        root: folder to make.
        size: one of SIZES.
        seed: of the city, >= 0; another seed is another city.
        lidar: one of LIDARS.

    Raises:
        UserError: unknown size or LiDAR, negative seed, or `root` holds something else.
    """
    root = Path(root)
    if size not in SIZES:
        raise unknown_name("synthesize size", size, SIZES)
    if lidar not in LIDARS:
        raise unknown_name("synthesize lidar", lidar, LIDARS)
    if seed < 0:
        raise UserError(f"synthesize: seed must be >= 0, got {seed}; give a non-negative number")
    wanted = {"size": size, "seed": seed, "version": VERSION}
    if lidar != DEFAULT:  # cities from before there was a choice stay as they are
        wanted["lidar"] = lidar
    if _is_complete(root, wanted):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with making_folder(root) as partial:
        _write_city(partial, SIZES[size], seed, LIDARS[lidar])
        write_atomically(partial / "city.json", orjson.dumps(wanted, option=orjson.OPT_INDENT_2))
        partial.chmod(0o755)  # mkdtemp gives 0700, which a shared file system's readers cannot open
        try:
            os.rename(partial, root)
        except OSError:
            # Another process was first: the same city is as good, anything else is refused.
            if not _is_complete(root, wanted):
                raise


def _is_complete(root: Path, wanted: dict) -> bool:
    """Return whether `root` holds the wanted city; refuse where it holds something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    note = root / "city.json"
    found = orjson.loads(note.read_bytes()) if note.is_file() else "something else"
    if found == wanted:
        return True
    if isinstance(found, dict):
        found = ", ".join(f"{key} {value}" for key, value in found.items())
    text = ", ".join(f"{key} {value}" for key, value in wanted.items())
    raise UserError(
        f"{root}: city must be {text}, got {found}; remove the folder or choose another root"
    )


def _write_city(root: Path, size: Size, seed: int, lidar: Lidar) -> None:
    tables, splits = Tables(seed), {"train": [], "val": []}
    add_fixed_tables(tables)
    plan = [("train", size.train_keyframes)] * size.num_train
    plan += [("val", size.val_keyframes)] * size.num_val
    progress = Progress("synthesize", sum(count for _, count in plan), unit="keyframes")
    for position, (split, num_keyframes) in enumerate(plan):
        seconds = 0.5 * (num_keyframes - 1)
        drive = draw_drive(seed, position, split, seconds, VERSION)
        splits[split].append(drive.name)
        _record(root, tables, drive, position, size, lidar, num_keyframes, progress)
    add_map(tables)
    tables.link("sample", 0, ("scene_token",))
    tables.link("sample_data", 0, ("calibrated_sensor_token",))
    tables.write(root, splits)
    progress.close()


def _record(
    root: Path,
    tables: Tables,
    drive: Drive,
    position: int,
    size: Size,
    lidar: Lidar,
    num_keyframes: int,
    progress: Progress,
) -> None:
    """Drive through one scene and write every sensor's files."""
    rng = np.random.default_rng([tables.seed, VERSION, position, 7])
    rig = draw_rig(rng, size.height, size.width, lidar)
    add_scene(tables, drive, num_keyframes, rig)
    start_us = START_US + SCENE_US * position
    first_box = len(tables.records["sample_annotation"])
    for sample in range(num_keyframes):
        end_us = start_us + KEYFRAME_US * sample + int(rng.integers(-JITTER_US, JITTER_US))
        tables.add(
            "sample",
            tables.token("sample", drive.name, sample),
            timestamp=end_us,
            scene_token=tables.token("scene", drive.name),
            prev="",
            next="",
        )
        for mount in rig:
            if mount.channel != LIDAR:
                fire_us = end_us - mount.delay_us + int(rng.integers(-JITTER_US, JITTER_US))
                _write_picture(root, tables, drive, mount, sample, fire_us, start_us, size)
        num_scans = size.num_sweeps if sample < num_keyframes - 1 else 1
        for scan in range(num_scans):
            time_us = end_us + scan * KEYFRAME_US // size.num_sweeps
            _write_scan(root, tables, drive, rig[0], (sample, scan), time_us, start_us, size)
        progress.advance(note=drive.name)
    add_instances(tables, drive, first_box)


def _write_picture(
    root: Path,
    tables: Tables,
    drive: Drive,
    mount: Mount,
    sample: int,
    time_us: int,
    start_us: int,
    size: Size,
) -> None:
    """Write one camera's JPEG, its true segments and their list."""
    time_s = (time_us - start_us) * 1e-6
    name = f"samples/{mount.channel}/{drive.name}__{mount.channel}__{time_us}.jpg"
    shot = Shot(mount.channel, sample, time_us, True, name, size.height, size.width)
    token = add_shot(tables, drive, shot, ego_pose(drive, time_s))
    noise_seed = int(token[:6], 16)
    image, pieces = take_picture(drive, mount, time_s, size.height, size.width, noise_seed)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _put(root / name, cv2.imencode(".jpg", image[:, :, ::-1], quality)[1].tobytes())
    shown, ids = np.unique(pieces, return_inverse=True)
    ids = (ids.reshape(pieces.shape) + 1).astype(np.uint16)
    segments = [
        {
            "id": number + 1,
            "category_id": drive.pieces.categories[piece],
            "isthing": drive.pieces.instances[piece] > 0,
        }
        for number, piece in enumerate(shown)
    ]
    _put(root / "oracle" / f"{token}.png", cv2.imencode(".png", ids)[1].tobytes())
    _put(root / "oracle" / f"{token}.json", orjson.dumps(segments))


def _write_scan(
    root: Path,
    tables: Tables,
    drive: Drive,
    mount: Mount,
    number: tuple[int, int],
    time_us: int,
    start_us: int,
    size: Size,
) -> None:
    """Write one scan; `number` is (keyframe, scan after it); scan 0 carries labels and boxes."""
    sample, after = number
    time_s = (time_us - start_us) * 1e-6
    folder = "samples" if after == 0 else "sweeps"
    name = f"{folder}/{LIDAR}/{drive.name}__{LIDAR}__{time_us}.pcd.bin"
    nearest = sample + (1 if 2 * after > size.num_sweeps else 0)
    shot = Shot(LIDAR, nearest, time_us, after == 0, name, 0, 0)
    token = add_shot(tables, drive, shot, ego_pose(drive, time_s))
    rng = np.random.default_rng([tables.seed, VERSION, int(token[:12], 16)])
    scan = take_scan(drive, mount, time_s, size.num_columns, rng)
    _put(root / name, scan.points.astype("<f4").tobytes())
    if after:
        return
    category = np.array(drive.pieces.categories)[scan.pieces]
    instance = np.array(drive.pieces.instances)[scan.pieces]
    label_file = f"lidarseg/{RELEASE}/{token}_lidarseg.bin"
    _put(root / label_file, category.astype(np.uint8).tobytes())
    tables.add("lidarseg", token, sample_data_token=token, filename=label_file)
    packed = io.BytesIO()
    np.savez_compressed(packed, data=(1000 * category + instance).astype(np.uint16))
    panoptic_file = f"panoptic/{RELEASE}/{token}_panoptic.npz"
    _put(root / panoptic_file, packed.getvalue())
    tables.add("panoptic", token, sample_data_token=token, filename=panoptic_file)
    hits = np.bincount(scan.pieces, minlength=len(drive.pieces.categories))
    add_boxes(tables, drive, sample, time_s, hits)


def _put(path: Path, data: bytes) -> None:
    """Write a file of the folder in the making (its rename at the end is what makes it whole)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)

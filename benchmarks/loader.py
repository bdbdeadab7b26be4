"""A training sample from our stores beside one from raw files, read as SLidR's loader reads them.

    python -m benchmarks.loader [--root FOLDER] [--rounds 20]

One real nuScenes keyframe: six 1600 x 900 cameras, 34,688 points, SLIC superpixels, crops of
224 x 416, cylindrical voxels, all augmentations. Each side has a process of one thread; they make a
sample in turns, and seconds are processor time of the process, so that other work on the machine
counts little. The raw side is written plainly from what SLidR's loader does (specifications, not
its code): decode six full images and six PNG masks, images to float32, carry the points through the
four frames of every camera, augment the cloud, crop and flip, quantize with MinkowskiEngine's
function (numpy where it is not built).
Ends with how many times faster the stores are, and what a second cloud adds.
"""

import argparse
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pipeline.__main__ import main as stage_one
from pipeline.index import Index, read_index
from pipeline.store import open_store
from train.batch import collate
from train.loader import keep_memory, load_sample
from train.recipes import Recipe, load_recipe
from train.stores import StorePaths, Stores

SIZE, ASPECT, ENOUGH_PAIRS = (224, 416), (14 / 9, 17 / 9), 1024


@dataclass(frozen=True)
class RawCamera:
    """Where a camera's files are, and how points reach it, step by step."""

    image: Path
    mask: Path
    steps: tuple[np.ndarray, ...]  # 4 x 4, LiDAR to ego to world to ego to camera
    K: np.ndarray


class RepeatedFrame(Stores):
    """Stores whose frames follow themselves, so that one keyframe makes a two-frame sample."""

    def successor(self, row: int) -> int:
        """Return the row itself."""
        return row


def raw_cameras(index: Index, root: Path, stores: Path, masks: Path) -> list[RawCamera]:
    """Write masks as 8-bit PNG and return the cameras; poses are split into four equal steps."""
    frame, cameras = index.frame(0), []
    ids = open_store(stores / "superpixels-slic.zarr").read("ids_native", 0)
    for slot, camera in enumerate(frame.cameras):
        path = masks / f"{camera.token}.png"
        Image.fromarray(ids[slot].astype(np.uint8)).save(path)
        matrix = np.asarray(camera.T_cam_lidar)
        steps = (np.eye(4), np.eye(4), np.eye(4), matrix)
        cameras.append(RawCamera(root / camera.path, path, steps, np.asarray(camera.K)))
    return cameras


def project_raw(points: np.ndarray, camera: RawCamera, size: tuple[int, int]) -> np.ndarray:
    """Return (point, row, column) [M, 3] of the points that a camera sees."""
    xyz = points[:, :3].T.astype(np.float64)
    for step in camera.steps:
        xyz = step[:3, :3] @ xyz + step[:3, 3:]
    depth = xyz[2]
    uvw = camera.K @ xyz
    u, v = uvw[0] / uvw[2], uvw[1] / uvw[2]
    seen = (depth > 1) & (u > 0) & (u < size[1] - 1) & (v > 0) & (v < size[0] - 1)
    return np.stack([np.flatnonzero(seen), np.floor(v[seen]), np.floor(u[seen])], 1).astype(int)


def read_raw(points_path: Path, cameras: list[RawCamera]):
    """Return points, images [C, 3, H, W] float, masks [C, H, W] and pairs (point, camera, r, c)."""
    points = np.fromfile(points_path, np.float32).reshape(-1, 5)[:, :4]
    images, masks, pairs = [], [], []
    for number, camera in enumerate(cameras):
        image = np.array(Image.open(camera.image))
        masks.append(np.array(Image.open(camera.mask)))
        found = project_raw(points, camera, image.shape[:2])
        pairs.append(np.insert(found, 1, number, axis=1))
        images.append(image)
    pixels = torch.tensor(np.array(images, np.float32) / 255).permute(0, 3, 1, 2)
    return points, pixels, torch.tensor(np.array(masks)), np.concatenate(pairs)


def augment_raw(points, images, masks, pairs, rng: np.random.Generator):
    """Return the sample turned, thinned, cropped and flipped; everything at full size first."""
    angle = rng.uniform(0, 2 * math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = points.copy()
    points[:, :2] = points[:, :2] @ turn.T * np.where(rng.random(2) < 0.5, -1, 1)
    extent = np.ptp(points[:, :3], axis=0) * rng.uniform(0, 0.2) / 2
    center = points[rng.integers(len(points)), :3]
    keep = ~(np.abs(points[:, :3] - center) < extent).all(1)
    kept = pairs[keep[pairs[:, 0]]]
    if np.bincount(kept[:, 1], minlength=len(images)).min() >= ENOUGH_PAIRS:
        points, pairs = points[keep], kept.copy()
        pairs[:, 0] = (np.cumsum(keep) - 1)[pairs[:, 0]]
    crops, small_masks, columns = [], [], []
    _, _, height, width = images.shape
    for number in range(len(images)):
        own = pairs[pairs[:, 1] == number]
        image, mask = images[number], masks[number]
        while True:
            area = rng.uniform(0.3, 1) * height * width
            aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
            h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if h > height or w > width:
                continue
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            row = np.rint((own[:, 2] - top) * SIZE[0] / h)
            col = np.rint((own[:, 3] - left) * SIZE[1] / w)
            inside = (row >= 0) & (row < SIZE[0]) & (col >= 0) & (col < SIZE[1])
            if inside.sum() > min(ENOUGH_PAIRS, 0.75 * len(own)):
                break
        box = (slice(top, top + h), slice(left, left + w))
        crop = F.interpolate(image[:, *box][None], SIZE, mode="bilinear", align_corners=False)[0]
        small = F.interpolate(mask[box][None, None].float(), SIZE, mode="nearest")[0, 0].byte()
        if rng.random() < 0.5:
            crop, small, col = torch.flip(crop, [2]), torch.flip(small, [1]), SIZE[1] - 1 - col
        crops.append(crop)
        small_masks.append(small.long())
        columns.append(np.stack([own[:, 0], own[:, 1], row, col], 1)[inside].astype(int))
    return points, torch.stack(crops), torch.stack(small_masks), np.concatenate(columns)


def quantize_raw(points: np.ndarray):
    """Return voxels [V, 3], intensities [V, 1] and each point's voxel [N], cylindrical."""
    x, y, z = points[:, :3].T
    rho, phi = np.sqrt(x**2 + y**2) / 0.1, np.degrees(np.arctan2(y, x))
    cells = np.floor(np.stack([rho, phi, z / 0.1], axis=1)).astype(np.int32)
    voxels, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    return voxels, points[first, 3:4], inverse


def quantize_engine(points: np.ndarray):
    """The same by MinkowskiEngine's own function, as SLidR calls it."""
    from train.engines.minkowski import ME

    x, y, z = points[:, :3].T
    rho, phi = np.sqrt(x**2 + y**2) / 0.1, np.degrees(np.arctan2(y, x))
    cells = np.ascontiguousarray(np.stack([rho, phi, z / 0.1], axis=1), np.float32)
    return ME.utils.sparse_quantize(
        cells, features=points[:, 3:4], return_index=True, return_inverse=True
    )


def raw_sample(points_path: Path, cameras: list[RawCamera], quantize: Callable, seed: int):
    """Return one sample from raw files."""
    rng = np.random.default_rng(seed)
    points, images, masks, pairs = augment_raw(*read_raw(points_path, cameras), rng)
    return quantize(points), images, masks, torch.from_numpy(pairs)


def store_sample(stores: Stores, recipe: Recipe, seed: int):
    """Return one sample from stores, as a batch of one."""
    return collate([load_sample(stores, recipe, 0, seed, 0)])


def serve(pipe: Connection, make: Callable[[], Callable[[int], object]]) -> None:
    """Make a sample for every number that comes, and send back the processor ms it took."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    side = make()
    while (number := pipe.recv()) is not None:
        start = time.process_time()
        side(number)
        pipe.send(1000 * (time.process_time() - start))


def measure(sides: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Return processor ms of each side, in turns; the first round only warms."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name, make in sides.items():
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(theirs, make), daemon=True))
        processes[-1].start()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, pipe in pipes.items():
            pipe.send(number)
            times[name].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()
    return {name: each[1:] for name, each in times.items()}


def open_raw(points_path: Path, cameras: list[RawCamera]) -> Callable[[int], object]:
    """Return the raw side."""
    try:
        import train.engines.minkowski  # noqa: F401
    except ImportError:
        return partial(raw_sample, points_path, cameras, quantize_raw)
    return partial(raw_sample, points_path, cameras, quantize_engine)


def open_stores(kind: type[Stores], folder: Path, recipe: Recipe) -> Callable[[int], object]:
    """Return a side that reads stores, as a loader's worker is set up."""
    keep_memory()
    return partial(store_sample, kind(StorePaths(folder)), recipe)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(os.environ.get("SELKIE_DATA", "../shared/data"))
    parser.add_argument("--root", type=Path, default=data / "nuscenes")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    if not options.root.is_dir():
        print(f"{options.root}: no nuScenes keyframe there; give --root or set SELKIE_DATA")
        return
    with tempfile.TemporaryDirectory() as name:
        where = ["--root", str(options.root), "--stores", name]
        stage_one(["run", "--dataset", "nuscenes", *where], standalone_mode=False)
        [folder] = [path for path in Path(name).iterdir() if path.is_dir()]
        index = read_index(folder / "index.parquet")
        masks = Path(name) / "masks"
        masks.mkdir()
        cameras = raw_cameras(index, options.root, folder, masks)
        points_path = options.root / index.frame(0).points_path
        seal = load_recipe("seal")
        alone = replace(seal, losses=replace(seal.losses, temporal_weight=0.0))
        sides = {
            "raw files": partial(open_raw, points_path, cameras),
            "stores, one frame": partial(open_stores, Stores, folder, alone),
            "stores, two frames": partial(open_stores, RepeatedFrame, folder, seal),
        }
        report(measure(sides, options.rounds))


def report(times: dict[str, list[float]]) -> None:
    """Print medians, best times and ratios."""
    for name, each in times.items():
        middle = statistics.median(each)
        print(f"{name:20s} median {middle:6.1f} ms, best {min(each):6.1f} ms, "
              f"{1000 / middle:5.1f} samples/s")  # fmt: skip
    raw, one, two = times.values()
    for what, of in (("median", statistics.median), ("best", min)):
        print(f"{what}: raw / stores = {of(raw) / of(one):.1f}, "
              f"two frames / one = {of(two) / of(one):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()

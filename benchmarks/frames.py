"""Stage frames beside its floor: reading, decoding and compressing, which no code can leave out.

    python -m benchmarks.frames [--dataset semantickitti] [--root FOLDER] [--rounds 9] [--limit 10]

Both do the same frames in turns. The floor reads every file, decodes and shrinks the images,
encodes them as JPEG and compresses the same chunks with the same codec into one file; the stage
also checks, derives rings, shards, hashes and writes markers. Seconds are processor time of one
process, so that other work on the machine does not count. Then the same scans again and again, as
many as make 10 blocks, with one and with two local workers and with two serial processes, in turns:
frames/s between the first and the last block done.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from numcodecs.zstd import compress

from benchmarks.cluster import measure_rate
from benchmarks.recordings import DATA
from pipeline import graph
from pipeline.blocks import write_block
from pipeline.geometry import store_size
from pipeline.graph import STAGES
from pipeline.image import decode_image, encode_jpeg, resize_image
from pipeline.index import build_index, write_index
from pipeline.making import COMPRESSION_LEVEL
from pipeline.manifest import load_manifest, resolve_version
from pipeline.stage import Place, StageName, prepare

NUM_BLOCKS = 10


def blank(arrays, count: int) -> dict[str, np.ndarray]:
    """Return empty slices of `count` frames."""
    return {a.name: np.full((count, *a.frame_shape), a.fill, a.dtype) for a in arrays}


def run_stage(context: graph.Context, store, arrays, rows: range) -> float:
    """Return the processor seconds of the stage on one block."""
    start = time.process_time()
    slices = blank(arrays, len(rows))
    for row in rows:
        slots = {n: v[row : row + 1].reshape(v.shape[1:]) for n, v in slices.items()}
        graph.frames(context, row, slots)
    write_block(store, 0, slices, context.index.rows_hash(0, len(rows)), (), 0.0)
    return time.process_time() - start


def run_floor(context: graph.Context, arrays, rows: range, out: Path) -> float:
    """Return the processor seconds of reading, decoding and compressing the same frames."""
    start = time.process_time()
    with out.open("wb") as file:
        for row in rows:
            frame, slots = context.index.frame(row), blank(arrays, 1)
            raw = np.fromfile(context.root / frame.points_path, np.float32)
            slots["points"].reshape(-1)[: len(raw)] = raw
            if frame.label_path:
                packed = np.fromfile(context.root / frame.label_path, np.uint32)
                slots["labels"][0, : len(packed)] = packed & 0xFFFF
                slots["instances"][0, : len(packed)] = packed >> 16
            for slot, camera in context.cameras(frame):
                size = store_size(camera.height, camera.width, context.index.store_scale)
                jpeg = encode_jpeg(resize_image(decode_image(context.root / camera.path), *size))
                slots["jpeg"][0, slot, : len(jpeg)] = jpeg
            for spec in arrays:
                chunks = (
                    slots[spec.name].reshape(-1, *spec.chunk) if spec.chunk else [slots[spec.name]]
                )
                for chunk in chunks:
                    file.write(compress(np.ascontiguousarray(chunk), COMPRESSION_LEVEL, True))
    return time.process_time() - start


def repeat_drive(root: Path, out: Path, num_frames: int) -> None:
    """Make a KITTI drive of links to the files of sequence 00, over and over."""
    drive, copy = root / "sequences" / "00", out / "sequences" / "00"
    scans = sorted(path.stem for path in (drive / "velodyne").iterdir())
    for folder in (path for path in drive.iterdir() if path.is_dir()):
        (copy / folder.name).mkdir(parents=True)
        files = {path.stem: path for path in folder.iterdir()}
        for number in range(num_frames):
            if source := files.get(scans[number % len(scans)]):
                link = copy / folder.name / f"{number:06d}{source.suffix}"
                link.symlink_to(source.resolve())
    (copy / "calib.txt").write_text((drive / "calib.txt").read_text())


def compare_workers(dataset: str, root: Path, rounds: int) -> None:
    """Print the rates of one worker, two workers, and two serial processes."""
    ways = {
        "one worker": [["--scheduler", "local:1"]],
        "two workers": [["--scheduler", "local:2"]],
        "two serial processes": [["--shard", "0/2"], ["--shard", "1/2"]],
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        repeat_drive(root, Path(name), NUM_BLOCKS * STAGES["frames"].frames_per_block)
        what = ["--dataset", dataset, "--root", name, "--stage", "frames"]
        for _ in range(rounds):
            for way, commands in ways.items():
                rates[way].append(measure_rate(what, commands).steady)
    middle = {way: statistics.median(found) for way, found in rates.items()}
    print(", ".join(f"{way} {rate:.1f}" for way, rate in middle.items()), "frames/s")
    one, two, serial = middle.values()
    print(f"two workers / one = {two / one:.2f}, / two serial = {two / serial:.2f} (reach 0.95)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="semantickitti", help="One in KITTI's format.")
    parser.add_argument("--root", type=Path, default=DATA / "semantickitti")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2, help="rounds with workers, 0 = none")
    options = parser.parse_args()
    if not options.root.is_dir():
        print(f"frames: left out, no recordings at {options.root}; give --root")
        return
    cv2.setNumThreads(1)
    manifest = load_manifest(options.dataset)
    version = resolve_version(manifest, options.root)
    with tempfile.TemporaryDirectory() as name:
        place = Place(manifest, options.root, version, Path(name) / options.dataset)
        index = build_index(options.dataset, options.root, version)
        write_index(place.folder / "index.parquet", index)
        job, store = prepare(StageName("frames"), "slic", place, index)
        context = graph.Context(options.root, index, manifest, "slic", None, "cpu")
        rows = range(min(options.limit, len(index), store.header.frames_per_block))
        if len(rows) < len(store.block_rows(0)):
            raise SystemExit(f"--limit: must cover a block of {len(store.block_rows(0))} frames")
        seconds: dict[str, list[float]] = {"stage": [], "floor": []}
        for _ in range(options.rounds + 1):  # the first warms caches
            seconds["stage"].append(run_stage(context, store, job.arrays, rows))
            seconds["floor"].append(run_floor(context, job.arrays, rows, Path(name) / "floor"))
    stage, floor = (statistics.median(seconds[what][1:]) for what in ("stage", "floor"))
    print(f"{len(rows)} frames: stage {stage:.2f} s, floor {floor:.2f} s of one core")
    print(f"floor / stage = {floor / stage:.0%} (reach 80 %)")
    if options.workers:
        compare_workers(options.dataset, options.root, options.workers)


if __name__ == "__main__":
    main()

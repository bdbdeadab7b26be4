"""SAM after the image encoder: the package's mask generator and ours, time and memory, in turns.

    python -m benchmarks.sam [--rounds 2] [--good 0.35] [--points 32]

Same weights, image and machine, one thread each. The mask decoder has its published size (it is the
same in ViT-H, -L and -B); the image encoder is a small one, since its time is left out. Weights are
random, so how many masks pass is set: the bias of the predicted IoU is chosen so that a share
`--good` of all 3,072 masks passes 0.88, and logits are steep enough that most of those are stable.
Peak memory is measured in processes of their own.

    python -m benchmarks.sam --quality       tiny SAM, SLIC and the true masks on the made-up city
"""

import argparse
import gc
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # numba sets torch's to its own

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.panoptic import peak_resident_mb  # noqa: E402
from benchmarks.superpixels import (  # noqa: E402
    boundary_recall,
    city_pictures,
    undersegmentation,
    without_small,
)
from pipeline.image import decode_image  # noqa: E402
from pipeline.sam.batches import Batches  # noqa: E402
from pipeline.sam.checkpoint import for_dataset  # noqa: E402
from pipeline.sam.decode import rate, share  # noqa: E402
from pipeline.sam.generate import segment  # noqa: E402
from pipeline.sam.prompts import crops_of, grid_points  # noqa: E402
from pipeline.sam.segmenter import CPU_PROMPTS  # noqa: E402
from pipeline.sam.settings import Settings  # noqa: E402
from pipeline.superpixels import sam, slic  # noqa: E402
from tests.pipeline.sam.reference import reference_ids, torchvision_stand_ins  # noqa: E402
from tests.pipeline.sam.small import SMALL, random_sam  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SELKIE_DATA", ROOT.parent / "shared" / "data"))
FULL_DECODER = replace(SMALL, grid=64, window=14, dim=256, decoder_mlp=2048, iou_width=256)


class Given(torch.nn.Module):
    """Stands for the image encoder: returns an embedding that was computed before."""

    def __init__(self, embedding: torch.Tensor, image_size: int) -> None:
        """Remember what to return."""
        super().__init__()
        self.embedding, self.img_size = embedding, image_size

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        """Return the embedding [1, D, grid, grid]."""
        return self.embedding


def network(image: np.ndarray, good: float) -> tuple[torch.nn.Module, torch.Tensor]:
    """Return a network with a decoder of published size, and the image's embedding."""
    model = random_sam(FULL_DECODER)
    source = sam.Segmenter(
        model, FULL_DECODER, Settings(), torch.device("cpu"), Batches("", 1, print), None
    )
    with torch.inference_mode():
        embedding = source.encode([image])[0]
        points = torch.from_numpy(grid_points(crops_of(1024, 1024, Settings())[0], Settings(8)))
        rated = rate(model, share(model, embedding), points[:64])
        shift = 0.88 - rated.iou.quantile(1 - good, dim=0)
        model.mask_decoder.iou_prediction_head.layers[-1].bias[1:] += shift
    embedding = embedding.clone()
    model.image_encoder = Given(embedding[None], FULL_DECODER.image_size)
    return model, embedding


def ours(model: torch.nn.Module, embedding: torch.Tensor, image: np.ndarray, points: int):
    """Return our id map."""
    settings = Settings(points_per_side=points)
    with torch.inference_mode():
        batches = Batches("prompts", CPU_PROMPTS, print)
        return segment(model, [embedding], crops_of(*image.shape[:2], settings), settings, batches)


def theirs(model: torch.nn.Module, embedding: torch.Tensor, image: np.ndarray, points: int):
    """Return the package's id map; resizing the image and painting are part of it, 0.1 s."""
    with torchvision_stand_ins():
        return reference_ids(model, image, points_per_side=points)


SIDES = {"package": theirs, "selkie": ours}


def first_image() -> np.ndarray:
    """Return a real image where there is one, else one of the made-up city."""
    found = sorted((DATA / "nuscenes" / "samples" / "CAM_FRONT").glob("*.jpg"))
    return decode_image(found[0]) if found else city_pictures(1, 900, 1600)[0][0]


def compare(options: argparse.Namespace) -> None:
    """Time both sides in turns, then measure the memory of each in a process of its own."""
    image = first_image()
    model, embedding = network(image, options.good)
    ours(model, embedding, image, 4)  # compile
    spent = {name: [] for name in SIDES}
    maps = {}
    for _ in range(options.rounds):
        for name, side in SIDES.items():
            start, core = time.perf_counter(), time.process_time()
            maps[name] = side(model, embedding, image, options.points)
            spent[name].append((time.process_time() - core, time.perf_counter() - start))
            print(f"  {name}: {spent[name][-1][0]:.1f} s of a core", flush=True)
    best = {name: min(times) for name, times in spent.items()}
    height, width = image.shape[:2]
    agree = (maps["package"] == maps["selkie"]).mean()
    print(f"{width} x {height}, {options.points**2} prompts, {options.good:.0%} of masks good:")
    for name, (core, wall) in best.items():
        count = maps[name].max()
        print(f"  {name:10s} {core:7.1f} s of a core ({wall:.1f} s on the clock), {count} masks")
    ratio = best["package"][0] / best["selkie"][0]
    print(f"  ratio {ratio:.1f}, pixels that agree {agree:.6f}")
    peaks = {}
    for name in SIDES:
        words = ["--memory", name, "--good", str(options.good), "--points", str(options.points)]
        command = [sys.executable, "-m", "benchmarks.sam", *words]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        start, peak = map(float, done.stdout.split()[-2:])
        peaks[name] = peak - start
        print(f"  {name:10s} peak {peak:.0f} MB, {peak - start:.0f} MB above the loaded network")
    print(f"  memory ratio {peaks['package'] / peaks['selkie']:.1f}")


def memory(options: argparse.Namespace) -> None:
    """Print resident memory before and the peak after one image, MB."""
    image = first_image()
    model, embedding = network(image, options.good)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here (Linux)
    before = peak_resident_mb()
    SIDES[options.memory](model, embedding, image, options.points)
    print(before, peak_resident_mb())


def quality(options: argparse.Namespace) -> None:
    """Print boundary recall, undersegmentation error and segments on pictures of the city."""
    pictures = city_pictures(options.pictures, 234, 416)
    tiny = sam.load(for_dataset(sam.Config(), "synthetic"), "cpu")
    coarse = slic.load(slic.Config(), "cpu")
    methods = {
        "true masks": lambda image, pieces: _numbered(pieces),
        "slic": lambda image, pieces: coarse.segment(image, None).ids,
        "tiny SAM": lambda image, pieces: tiny.segment(image, None).ids,
    }
    print(f"city 416 x 234, {len(pictures)} pictures:")
    for name, method in methods.items():
        rows = []
        for image, pieces in pictures:
            truth, ids = without_small(pieces), method(image, pieces)
            count = np.count_nonzero(np.bincount(ids.ravel())[1:])
            covered = (ids > 0).mean()
            rows.append(
                (boundary_recall(truth, ids), undersegmentation(truth, ids), count, covered)
            )
        recall, error, count, covered = np.mean(rows, axis=0)
        print(
            f"  {name:10s} boundary recall {recall:.3f}, undersegmentation {error:.3f}, "
            f"{count:.0f} segments, {covered:.0%} covered"
        )


def _numbered(pieces: np.ndarray) -> np.ndarray:
    _, inverse = np.unique(pieces, return_inverse=True)
    return inverse.reshape(pieces.shape) + 1


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--good", type=float, default=0.35, help="share of masks above 0.88")
    parser.add_argument("--points", type=int, default=32, help="prompts along a side")
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--memory", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        memory(options)
    elif options.quality:
        quality(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()

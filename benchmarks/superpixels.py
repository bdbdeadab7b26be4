"""SLIC against scikit-image's, on the same images in turns, one thread each: time and quality.

    python -m benchmarks.superpixels [--rounds 3] [--pictures 4]

Time: seconds per image on real 1600 x 900 images where there are recordings (SELKIE_DATA), and on
pictures of the made-up city drawn at that size. Quality on the city, whose true objects are known:
boundary recall (share of true boundary pixels with a found one at most two pixels away, higher is
better) and undersegmentation error (share of pixels by which regions leak over true objects, in the
corrected form of Neubert and Protzel 2012, lower is better), both over segments that have 400
pixels or more.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import skimage.segmentation  # noqa: E402

from pipeline.image import decode_image  # noqa: E402
from pipeline.superpixels import slic  # noqa: E402
from pipeline.synthetic.scene import draw_drive  # noqa: E402
from pipeline.synthetic.sensors import draw_rig, take_picture  # noqa: E402
from pipeline.synthetic.write import VERSION  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SELKIE_DATA", ROOT.parent / "shared" / "data"))
HEIGHT, WIDTH = 900, 1600
MIN_PIXELS = 400  # of a true segment that counts
TOLERANCE = 2  # px

Segmenter = Callable[[np.ndarray], np.ndarray]


def peers() -> dict[str, Segmenter]:
    """Return the contestants: image [H, W, 3] uint8 to ids [H, W]."""
    settings = {"n_segments": 150, "compactness": 6.0, "sigma": 3.0, "start_label": 0}
    ours = slic.load(slic.Config(), "cpu")
    whole = slic.load(slic.Config(coarse_to_fine=False), "cpu")
    return {
        "scikit-image": lambda image: skimage.segmentation.slic(image, **settings) + 1,
        "selkie": lambda image: ours.segment(image, None).ids,
        "selkie, coarse_to_fine=false": lambda image: whole.segment(image, None).ids,
    }


def city_pictures(count: int, height: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pictures of the made-up city and their true segments, each of another scene."""
    pictures = []
    for position in range(count):
        drive = draw_drive(50, position, "train", 2.0, VERSION)
        rig = draw_rig(np.random.default_rng(position), height, width)
        camera = rig[1 + position % (len(rig) - 1)]
        pictures.append(take_picture(drive, camera, 1.0, height, width, position))
    return pictures


def boundary(ids: np.ndarray) -> np.ndarray:
    """Return the pixels [H, W] bool whose right or lower neighbor has another id."""
    edge = np.zeros(ids.shape, bool)
    edge[:, :-1] |= ids[:, 1:] != ids[:, :-1]
    edge[:-1] |= ids[1:] != ids[:-1]
    return edge


def boundary_recall(truth: np.ndarray, ids: np.ndarray) -> float:
    """Return the share of true boundary pixels near a found one."""
    side = 2 * TOLERANCE + 1
    near = cv2.dilate(boundary(ids).astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    return float(near[boundary(truth)].mean())


def undersegmentation(truth: np.ndarray, ids: np.ndarray) -> float:
    """Return sum over regions and the objects they touch of min(inside, outside), per pixel."""
    pairs, overlap = np.unique(
        np.stack([truth.ravel().astype(np.int64), ids.ravel().astype(np.int64)]),
        axis=1,
        return_counts=True,
    )
    size = np.bincount(ids.ravel())
    return float(np.minimum(overlap, size[pairs[1]] - overlap).sum() / truth.size)


def without_small(truth: np.ndarray) -> np.ndarray:
    """Return the segments with those below MIN_PIXELS joined into one, 0."""
    values, inverse, counts = np.unique(truth, return_inverse=True, return_counts=True)
    kept = np.where(counts >= MIN_PIXELS, np.arange(1, len(values) + 1), 0)
    return kept[inverse].reshape(truth.shape)


def seconds(methods: dict[str, Segmenter], images: list[np.ndarray], rounds: int) -> dict:
    """Return each method's best round, seconds per image; methods take turns image by image."""
    best = dict.fromkeys(methods, np.inf)
    for _ in range(rounds):
        spent = dict.fromkeys(methods, 0.0)
        for image in images:
            for name, segment in methods.items():
                start = time.perf_counter()
                segment(image)
                spent[name] += time.perf_counter() - start
        best = {name: min(best[name], spent[name] / len(images)) for name in methods}
    return best


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=4)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    methods = peers()
    real = sorted((DATA / "nuscenes" / "samples").glob("CAM_*/*.jpg"))
    drawn = city_pictures(options.pictures, HEIGHT, WIDTH)
    places = {"city": [image for image, _ in drawn]}
    if real:
        places["nuScenes"] = [decode_image(path) for path in real]
    for segment in methods.values():
        segment(drawn[0][0])  # compile
    for place, images in places.items():
        found = seconds(methods, images, options.rounds)
        print(f"{place}, {len(images)} images of {WIDTH} x {HEIGHT}, best of {options.rounds}:")
        for name, value in found.items():
            ratio = found["scikit-image"] / value
            print(f"  {name:24s} {value * 1e3:7.1f} ms an image, {ratio:5.1f} x scikit-image")
    for height, width in ((HEIGHT, WIDTH), (234, 416)):
        pictures = city_pictures(3 * options.pictures, height, width)
        print(f"city {width} x {height}, {len(pictures)} pictures:")
        for name, segment in methods.items():
            rows = []
            for image, pieces in pictures:
                truth, ids = without_small(pieces), segment(image)
                rows.append((boundary_recall(truth, ids), undersegmentation(truth, ids), ids.max()))
            recall, error, count = np.mean(rows, axis=0)
            print(
                f"  {name:24s} boundary recall {recall:.3f}, undersegmentation {error:.3f}, "
                f"{count:.0f} segments"
            )


if __name__ == "__main__":
    main()

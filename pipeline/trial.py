"""Time a superpixel source on a few images before a run is planned."""

import time
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UserError
from pipeline.graph import Context
from pipeline.index import Index
from pipeline.job import Job
from pipeline.manifest import load_manifest
from pipeline.superpixels.table import segment_images

IMAGES = 3  # measured, after one that is not: compilers and caches warm up on it
ENOUGH_S = 60.0  # no further image is started after this long


@dataclass(frozen=True)
class Trial:
    """What a few images took."""

    num_images: int
    seconds_per_frame: float
    segments: tuple[int, ...]  # per image


def time_images(job: Job, index: Index, rows: np.ndarray) -> Trial:
    """Return the time per frame, measured on one camera each of frames spread over the rows.

    Raises:
        UserError: the source cannot be loaded here, or no frame has an image.
    """
    context = Context(
        job.root, index, load_manifest(job.dataset), job.source_name, job.config, job.device
    )
    chosen = [rows[i * (len(rows) - 1) // IMAGES] for i in range(IMAGES + 1)]
    frames = [index.frame(int(row)) for row in chosen]
    present = [context.cameras(frame) for frame in frames]
    if not all(present):
        raise UserError(f"{job.dataset}: frames must have images to be timed, got some without")
    seconds, segments = [], []
    start_s = time.monotonic()
    for number, cameras in enumerate(present):
        _, camera = cameras[number % len(cameras)]
        begun_s = time.monotonic()
        image = context.reader.load_image(context.root, camera)
        found = segment_images(context.source, [image], [camera])
        seconds.append(time.monotonic() - begun_s)
        segments.append(found[0].num_segments)
        if number and time.monotonic() - start_s > ENOUGH_S:
            break
    warm = seconds[1:]
    num_cameras = np.mean([len(cameras) for cameras in present])
    return Trial(len(warm), float(np.mean(warm) * num_cameras), tuple(segments[1:]))

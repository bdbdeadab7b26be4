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

IMAGES = 3  # frames measured, after one that is not: compilers and caches warm up on it
ENOUGH_S = 60.0  # no further image is started after this long


@dataclass(frozen=True)
class Trial:
    """What a few images took."""

    num_images: int
    seconds_per_frame: float
    segments: tuple[int, ...]  # per image


def time_images(job: Job, index: Index, rows: np.ndarray) -> Trial:
    """Return the time per frame, measured on frames spread over the rows.

    Of each as many images as the source takes at once: one, unless its config says more.

    Raises:
        UserError: the source cannot be loaded here, or none of these frames has an image.
    """
    context = Context(
        job.root, index, load_manifest(job.dataset), job.source_name, job.config, job.device
    )
    chosen = [rows[i * (len(rows) - 1) // IMAGES] for i in range(IMAGES + 1)]
    of_frames = [[c for _, c in context.cameras(index.frame(int(row)))] for row in chosen]
    seeing = [cameras for cameras in of_frames if cameras]
    if not seeing:
        raise UserError(f"{job.dataset}: frames must have images to be timed, got none with any")
    at_once = getattr(job.config, "images_per_batch", 1)
    seconds, segments = 0.0, []
    start_s = time.monotonic()
    for number, cameras in enumerate([seeing[0], *seeing] if len(seeing) == 1 else seeing):
        first = number % len(cameras)
        cameras = [*cameras[first:], *cameras[:first]][:at_once]
        begun_s = time.monotonic()
        images = [context.reader.load_image(context.root, camera) for camera in cameras]
        found = segment_images(context.source, images, cameras)
        if number:
            seconds += time.monotonic() - begun_s
            segments += [each.num_segments for each in found]
            if time.monotonic() - start_s > ENOUGH_S:
                break
    per_image = seconds / len(segments)
    num_cameras = np.mean([len(cameras) for cameras in of_frames])
    return Trial(len(segments), float(per_image * num_cameras), tuple(segments))

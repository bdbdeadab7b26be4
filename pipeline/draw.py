"""One frame out of the stores onto pages: what a person looks at before trusting them."""

from pathlib import Path

import numpy as np

from pipeline import pictures
from pipeline.errors import UserError, check
from pipeline.geometry import store_pixels
from pipeline.image import decode_jpeg
from pipeline.index import Index
from pipeline.projection import project_with_depth
from pipeline.store import Store, open_store


def draw_frame(
    folder: Path, index: Index, source: str, frame_id: str | None, out: Path | None
) -> list[Path]:
    """Write the PNG pages of one frame and return their paths.

    Args:
        folder: `<stores>/<dataset>`.
        index: its index.
        source: superpixel source.
        frame_id: frame id or row number; None = the first frame with a successor, else the first.
        out: folder of the pages; None = `<folder>/pictures`.

    Raises:
        UserError: no such frame, or a store or block is missing.
    """
    row = _row(index, frame_id)
    out = out or folder / "pictures"
    frames = open_store(folder / "frames.zarr")
    count = int(frames.read("num_points", row))
    points = frames.read("points", row, slice(0, count))
    stem = f"row{row:06d}"
    pages = {}
    if index.cameras:
        superpixels = open_store(folder / f"superpixels-{source}.zarr")
        projections = open_store(folder / "projections.zarr")
        shown = _camera_pages(frames, superpixels, projections, index, row, points)
        pages[f"{stem}-superpixels-{source}.png"], pages[f"{stem}-projections.png"] = shown
    if index.has_pairs:
        segments = open_store(folder / "segments.zarr")
        pages[f"{stem}-segments.png"] = _segment_page(frames, segments, index, row, points)
    for name, page in pages.items():
        if page is not None:
            pictures.write_page(out / name, page)
    return [out / name for name, page in pages.items() if page is not None]


def _row(index: Index, frame_id: str | None) -> int:
    if frame_id is None:
        with_successor = np.flatnonzero(index.successor >= 0)
        return int(with_successor[0]) if len(with_successor) else 0
    if frame_id in index.frame_ids:
        return index.frame_ids.index(frame_id)
    check(
        frame_id.isdecimal() and int(frame_id) < len(index),
        f"--frame: must be a frame id or a row of 0..{len(index) - 1}, got '{frame_id}'; "
        f"for example '{index.frame_ids[0]}'",
    )
    return int(frame_id)


def _camera_pages(
    frames: Store,
    superpixels: Store,
    projections: Store,
    index: Index,
    row: int,
    points: np.ndarray,
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    frame = index.frame(row)
    images, ids, pixels, depths, names = [], [], [], [], []
    lengths, sizes = frames.read("jpeg_bytes", row), frames.read("image_size", row)
    for slot, camera in enumerate(frame.cameras):
        if camera is None:
            continue
        image = decode_jpeg(frames.read("jpeg", row, slot, slice(0, int(lengths[slot]))))
        height, width = image.shape[:2]
        uv = projections.read("uv", row, slot, slice(0, len(points))).astype(np.int64)
        seen = uv[:, 0] >= 0
        uv[seen, 0] = store_pixels(uv[seen, 0], int(sizes[slot, 1]), width)
        uv[seen, 1] = store_pixels(uv[seen, 1], int(sizes[slot, 0]), height)
        images.append(image)
        ids.append(superpixels.read("ids", row, slot)[:height, :width])
        pixels.append(uv)
        depths.append(project_with_depth(points, camera)[1])
        names.append(camera.name)
    if not images:
        return None, None
    return (
        pictures.superpixel_page(images, ids, names),
        pictures.projection_page(images, pixels, depths, names),
    )


def _segment_page(
    frames: Store, segments: Store, index: Index, row: int, points: np.ndarray
) -> np.ndarray | None:
    successor = int(index.successor[row])
    if successor < 0:
        return None
    if reason := frames.missing(successor):
        raise UserError(
            f"{frames.path}: frame {successor} must be done, got {reason}; {frames.remedy()}"
        )
    count = int(frames.read("num_points", successor))
    later = frames.read("points", successor, slice(0, count))
    ids_t = segments.read("ids", row, 0, slice(0, len(points)))
    ids_s = segments.read("ids", row, 1, slice(0, count))
    return pictures.segments_page(points, ids_t, later, ids_s)

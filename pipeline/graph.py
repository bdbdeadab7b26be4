"""PAGE ONE: stage one, frame by frame. Order only; the maths is in the modules it calls.

Four independent stages, none reads another's output. Each fills its own slots of a block, which
come pre-filled with 'nothing here': id 0, uv -1, no image, no label.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pipeline import projection, ring, segments
from pipeline.ahead import ahead
from pipeline.datasets.table import LAYOUTS
from pipeline.errors import UserError
from pipeline.geometry import store_size
from pipeline.image import encode_jpeg, resize_ids, resize_image
from pipeline.index import Index
from pipeline.manifest import Manifest
from pipeline.schema import (
    NO_RING,
    ArraySpec,
    Capacity,
    frames_arrays,
    projections_arrays,
    segments_arrays,
    superpixels_arrays,
)
from pipeline.superpixels.table import SOURCES, segment_images
from pipeline.types import Camera, Frame

Slots = dict[str, np.ndarray]  # array name -> one frame's slot, to be filled in place


@dataclass(frozen=True)
class Context:
    """What a worker holds open while it computes blocks of one stage."""

    root: Path
    index: Index
    manifest: Manifest
    source_name: str
    config: Any  # the stage's own frozen config
    device: str

    @cached_property
    def reader(self) -> ModuleType:
        """The data set's layout module."""
        return LAYOUTS.load(self.manifest.layout)

    @cached_property
    def source(self) -> Any:
        """The superpixel source, its model loaded once."""
        return SOURCES.load(self.source_name).load(self.config, self.device)

    def cameras(self, frame: Frame) -> list[tuple[int, Camera]]:
        """The cameras a frame has, with their slot numbers."""
        return [(slot, camera) for slot, camera in enumerate(frame.cameras) if camera is not None]


def frames(context: Context, row: int, out: Slots) -> None:
    """Points, labels and images of one keyframe."""
    frame = context.index.frame(row)
    cloud = context.reader.load_points(context.root, frame.points_path)
    num_points = len(cloud.points)
    out["points"][:num_points] = cloud.points
    out["num_points"][...] = num_points
    known = (cloud.ring != NO_RING).any()
    out["ring"][:num_points] = cloud.ring if known else ring.derive_ring(cloud.points)

    labels = context.reader.load_labels(context.root, frame, num_points)
    if labels is not None:
        out["labels"][:num_points] = labels.semantic
        out["has_labels"][...] = True
        if labels.instance is not None and "instances" in out:
            out["instances"][:num_points] = labels.instance

    for slot, camera in context.cameras(frame):
        image = context.reader.load_image(context.root, camera)
        size = store_size(camera.height, camera.width, context.index.store_scale)
        jpeg = encode_jpeg(resize_image(image, *size))
        capacity = out["jpeg"].shape[-1]
        if len(jpeg) > capacity:
            raise UserError(
                f"{frame.frame_id}/{camera.name}: JPEG must fit {capacity} bytes, got {len(jpeg)}; "
                "report this image"
            )
        out["jpeg"][slot, : len(jpeg)] = jpeg
        out["jpeg_bytes"][slot] = len(jpeg)
        out["image_size"][slot] = camera.height, camera.width

    out["scene"][...] = context.index.scene_number(row)
    out["successor"][...] = context.index.successor[row]
    out["t_ns"][...] = frame.t_ns
    if frame.T_world_lidar is not None:
        out["T_world_lidar"][...] = frame.T_world_lidar


def superpixels(context: Context, row: int, out: Slots) -> None:
    """Superpixel ids of every image of one keyframe, at native and at store size."""
    frame = context.index.frame(row)
    present = context.cameras(frame)
    cameras = [camera for _, camera in present]
    images = ahead(partial(context.reader.load_image, context.root, c) for c in cameras)
    segmented = segment_images(context.source, images, cameras)
    for (slot, camera), found in zip(present, segmented, strict=True):
        size = store_size(camera.height, camera.width, context.index.store_scale)
        out["ids_native"][slot, : camera.height, : camera.width] = found.ids
        out["ids"][slot, : size[0], : size[1]] = resize_ids(found.ids, *size)
        out["num_segments"][slot] = found.num_segments
        if found.category is not None:
            out["category"][slot, : len(found.category)] = found.category


def projections(context: Context, row: int, out: Slots) -> None:
    """Which pixel of which camera sees each point of one keyframe."""
    frame = context.index.frame(row)
    cloud = context.reader.load_points(context.root, frame.points_path)
    load_pixels = getattr(context.reader, "load_pixels", None)  # Waymo recorded its own
    recorded = load_pixels(context.root, frame) if load_pixels else None
    for slot, camera in context.cameras(frame):
        if recorded is None:
            uv = projection.project(cloud.points, camera)
        else:
            uv = projection.keep_seen(recorded[slot], cloud.points, camera)
        out["uv"][slot, : len(cloud.points)] = uv


def segments_of_pair(context: Context, row: int, out: Slots) -> None:
    """Temporal superpoint clusters of one keyframe and its successor."""
    if context.index.successor[row] < 0:
        return
    frame = context.index.frame(row)
    successor = context.index.frame(int(context.index.successor[row]))
    paths = [frame.points_path, *(sweep.path for sweep in frame.sweeps), successor.points_path]
    clouds = [context.reader.load_points(context.root, path).points for path in paths]
    T_lidar_world = np.linalg.inv(frame.T_world_lidar)
    T_lidar_sweeps = [sweep.T_lidar_sweep for sweep in frame.sweeps]
    transforms = [np.eye(4), *T_lidar_sweeps, T_lidar_world @ successor.T_world_lidar]
    ids_t, ids_successor = segments.segment_pair(clouds, transforms, context.config, seed=row)
    out["ids"][0, : len(ids_t)] = ids_t
    out["ids"][1, : len(ids_successor)] = ids_successor


@dataclass(frozen=True)
class Stage:
    """A stage's place in the graph: how its blocks are cut and what fills them."""

    version: int
    frames_per_block: int  # shrunk where a slice would pass 256 MB
    fill: Callable[[Context, int, Slots], None]
    arrays: Callable[..., list[ArraySpec]]


STAGES: dict[str, Stage] = {
    "frames": Stage(1, 32, frames, frames_arrays),
    "superpixels": Stage(1, 8, superpixels, superpixels_arrays),
    "projections": Stage(1, 32, projections, projections_arrays),
    "segments": Stage(1, 32, segments_of_pair, segments_arrays),
}


def stage_arrays(
    name: str, size: Capacity, has_instances: bool, categories: int
) -> list[ArraySpec]:
    """Return a stage's arrays for an index's capacities."""
    options = {"frames": (has_instances,), "superpixels": (categories,)}
    return STAGES[name].arrays(size, *options.get(name, ()))

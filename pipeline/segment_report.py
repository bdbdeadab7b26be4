"""How good the stored segments are where the recordings say what belongs together."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.geometry import move
from pipeline.index import Index
from pipeline.segment_truth import kept_ids, purity
from pipeline.store import Store, open_store

MOVED_M = 1.0  # an object whose mean point moved this far in the world between t and t+n moves


@dataclass(frozen=True)
class SegmentReport:
    """Shares over all pairs pooled, 0..1; NaN where nothing could be judged."""

    num_pairs: int
    purity: float  # clustered points of t in segments that are at least 90 % one object
    purity_successor: float
    clustered: float  # points of t with a segment
    kept_moving: float  # moving objects whose main segment is the same at t and t+n
    kept_all: float  # the same over all objects with instance ids
    num_moving: int


def report_segments(folder: Path, index: Index, name: str = "segments") -> SegmentReport:
    """Compare segments with labels and instances over every pair whose frames both have them.

    Args:
        folder: `<stores>/<dataset>`.
        index: its index.
        name: segment store, 'segments' or 'segments@label'.

    Raises:
        UserError: a store or block is missing.
    """
    frames, segments = open_store(folder / "frames.zarr"), open_store(folder / f"{name}.zarr")
    pooled: dict[str, list[np.ndarray]] = {"t": [], "s": [], "objects_t": [], "objects_s": []}
    kept_moving, kept_all, num_pairs = [], [], 0
    for row in np.flatnonzero(index.successor >= 0).tolist():
        after = int(index.successor[row])
        if not (frames.read("has_labels", row) and frames.read("has_labels", after)):
            continue
        num_pairs += 1
        objects_t, objects_s = _objects(frames, row), _objects(frames, after)
        ids_t = segments.read("ids", row, 0, slice(0, len(objects_t))).astype(np.int64)
        ids_s = segments.read("ids", row, 1, slice(0, len(objects_s))).astype(np.int64)
        start = row * 65536  # ids and instances of one pair are no others'
        pooled["t"].append(np.where(ids_t > 0, ids_t + start, 0))
        pooled["s"].append(np.where(ids_s > 0, ids_s + start, 0))
        pooled["objects_t"].append(objects_t)
        pooled["objects_s"].append(objects_s)
        things, moving = _moving(frames, row, after, objects_t, objects_s)
        for chosen, into in ((moving, kept_moving), (things, kept_all)):
            for number in chosen:
                share = kept_ids(ids_t, objects_t, ids_s, objects_s, np.array([number]))
                into += [] if np.isnan(share) else [share]
    join = {key: np.concatenate(parts) if parts else np.zeros(0) for key, parts in pooled.items()}
    return SegmentReport(
        num_pairs=num_pairs,
        purity=purity(join["t"], join["objects_t"]),
        purity_successor=purity(join["s"], join["objects_s"]),
        clustered=_mean(join["t"] > 0),
        kept_moving=_mean(kept_moving),
        kept_all=_mean(kept_all),
        num_moving=len(kept_moving),
    )


def _objects(frames: Store, row: int) -> np.ndarray:
    """Return [N] int64: instance * 65536 + raw class + 1; instance 0 for stuff, 0 = unlabeled."""
    count = int(frames.read("num_points", row))
    labels = frames.read("labels", row, slice(0, count)).astype(np.int64)
    has_instances = "instances" in frames.group
    instances = frames.read("instances", row, slice(0, count)) if has_instances else 0
    return np.where(labels > 0, np.asarray(instances, np.int64) * 65536 + labels + 1, 0)


def _moving(
    frames: Store, row: int, after: int, objects_t: np.ndarray, objects_s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return objects with an instance id in both frames, and those of them that moved."""
    centers = []
    for number, objects in ((row, objects_t), (after, objects_s)):
        points = frames.read("points", number, slice(0, len(objects)))
        world = move(frames.read("T_world_lidar", number), points)
        things = np.unique(objects[objects >= 65536])
        centers.append({int(o): world[objects == o].mean(0) for o in things})
    both = sorted(centers[0].keys() & centers[1].keys())
    moved = [o for o in both if np.linalg.norm(centers[1][o] - centers[0][o]) > MOVED_M]
    return np.array(both, np.int64), np.array(moved, np.int64)


def _mean(values: list[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")

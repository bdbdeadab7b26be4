"""Cameras and sweeps of all keyframes of a nuScenes release, as columns of the index."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipeline.ego_poses import rows_of
from pipeline.errors import UserError, check
from pipeline.geometry import Transform
from pipeline.index_table import CAMERA, SWEEP, lists, matrices, structs
from pipeline.json_tables import follow
from pipeline.nuscenes_tables import Tables
from pipeline.packed_text import text_parts

BLOCK = 4096  # matrices at a time: all at once, fresh pages cost more than the products


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, count, BLOCK))


def camera_column(tables: Tables, names: Sequence[str], T_world_lidar: Transform) -> pa.Array:
    """Return the cameras of every keyframe, null where a keyframe lacks one.

    Args:
        tables: whose keyframes have a slot for each camera.
        names: of the cameras.
        T_world_lidar: [keyframes, 4, 4].

    Raises:
        UserError: an image without a size, or a mount without 3x3 intrinsics.
    """
    rows = tables.keyframes[:, 1:].reshape(-1)
    given = rows >= 0
    place = np.where(given, np.cumsum(given) - 1, -1)  # of each slot among those that are given
    frame, slot = np.nonzero(tables.keyframes[:, 1:] >= 0)
    rows = rows[given]
    T_cam_lidar = np.empty((len(rows), 4, 4))
    for part in _blocks(len(rows)):
        T_cam_world = tables.T_world_sensor(rows[part], "egoC", "cam").inverse()
        T_world_here = Transform("world", "lidar", T_world_lidar.matrix[frame[part]])
        T_cam_lidar[part] = (T_cam_world @ T_world_here).matrix
    wanted = ["token", "filename", "height", "width"]
    shots = tables.shots.select(wanted).take(pa.array(rows)).combine_chunks()
    columns = {
        "name": pa.array(names, pa.string()).take(pa.array(slot)),
        "token": shots["token"].combine_chunks(),
        "path": shots["filename"].combine_chunks(),
        "height": _sides(shots, "height", slot, names),
        "width": _sides(shots, "width", slot, names),
        "K": matrices(_intrinsics(tables, rows, slot, names)),
        "T_cam_lidar": matrices(T_cam_lidar),
        "t_ns": pa.array(tables.t_ns[rows]),
        "distortion": lists(np.zeros(len(rows), int), pa.array([], pa.float64())),
    }
    absent = ~given
    cameras = structs(CAMERA, columns, np.zeros(len(rows), bool))
    if absent.any():
        cameras = cameras.take(pa.array(place, mask=absent))
    return lists(np.full(len(tables.keyframes), len(names)), cameras)


def _sides(shots: pa.Table, field: str, slot: np.ndarray, names: Sequence[str]) -> pa.Array:
    texts = shots[field].combine_chunks().dictionary_encode()
    values = [int(one) if one.isdigit() else 0 for one in texts.dictionary.to_pylist()]
    sides = np.array(values, np.int64)[texts.indices.to_numpy()]
    for row in np.flatnonzero((sides <= 0) | (sides >= 1 << 31))[:1]:
        size = [shots[name][int(row)].as_py().decode() for name in ("height", "width")]
        raise UserError(
            f"sample_data.json record {shots['token'][int(row)]}: height and width of "
            f"{names[slot[row]]} must be positive, got {size[0]} and {size[1]}; "
            "unpack the metadata archive again",
        )
    return pa.array(sides.astype(np.int32))


def _intrinsics(
    tables: Tables, rows: np.ndarray, slot: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Return K [rows, 3, 3] of images."""
    mounts, first, place = np.unique(
        tables.mount_rows[rows], return_index=True, return_inverse=True
    )
    K = [
        _intrinsic(tables, int(mount), names[slot[row]])
        for mount, row in zip(mounts, first, strict=True)
    ]
    return np.reshape(K, (-1, 3, 3))[place]


def _intrinsic(tables: Tables, mount: int, name: str) -> np.ndarray:
    given = tables.mounts.intrinsics[mount]
    try:
        K = np.array(given, np.float64)
    except (ValueError, TypeError):
        K = np.empty(0)
    check(
        K.shape == (3, 3) and bool(np.isfinite(K).all()),
        f"calibrated_sensor.json record {tables.mounts.tokens[mount]}: camera_intrinsic of {name} "
        f"must be 3x3, got {given}; unpack the metadata archive again",
    )
    return K


def sweep_column(
    tables: Tables, lidars: np.ndarray, successor: np.ndarray, T_world_lidar: Transform
) -> pa.Array:
    """Return the sweeps between each keyframe's scan and its successor's, in the scan's frame.

    Args:
        tables: with the scans.
        lidars: row of each keyframe's scan [keyframes].
        successor: keyframe that comes after [keyframes], -1 = none.
        T_world_lidar: [keyframes, 4, 4].

    Raises:
        UserError: `next` leads to a scan that is not there, or not on in time.
    """
    frames, rows = _chains(tables, lidars, successor)
    T_lidar_world, T_lidar_sweep = T_world_lidar.inverse().matrix, np.empty((len(rows), 4, 4))
    for part in _blocks(len(rows)):
        T_lidar_here = Transform("lidar", "world", T_lidar_world[frames[part]])
        T_world_sweep = tables.T_world_sensor(rows[part], "egoS", "sweep")
        T_lidar_sweep[part] = (T_lidar_here @ T_world_sweep).matrix
    columns = {
        "path": tables.shots["filename"].take(pa.array(rows)).combine_chunks(),
        "T_lidar_sweep": matrices(T_lidar_sweep),
    }
    sweeps = structs(SWEEP, columns, np.zeros(len(rows), bool))
    return lists(np.bincount(frames, minlength=len(lidars)), sweeps)


def _chains(
    tables: Tables, lidars: np.ndarray, successor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the keyframe [sweeps] and the row [sweeps] of every sweep, in order.

    All keyframes take a step along `next` at once, which a set without sweeps ends at each of them.
    """
    tokens, following = (tables.shots[name].combine_chunks() for name in ("token", "next"))
    scans = np.flatnonzero(tables.mounts.slots[tables.mount_rows] == 0)
    scan_tokens = tokens.take(pa.array(scans))
    targets = following.take(pa.array(scans))
    after = np.full(len(tokens), -1, np.int64)
    places = rows_of(scan_tokens, targets)
    after[scans[places >= 0]] = scans[places[places >= 0]]
    has_next = np.zeros(len(tokens), bool)
    has_next[scans] = np.diff(text_parts(targets)[1]) > 0

    frames = np.flatnonzero(successor >= 0)
    before, last = lidars[frames], lidars[successor[frames]]
    found = [(frames[:0], before[:0])]
    while len(frames):
        rows = after[before]
        on = has_next[before] & (rows != last)
        for k in np.flatnonzero(on & (rows < 0))[:1]:
            token, shot = following[int(before[k])].as_py(), tokens[int(before[k])].as_py()
            follow({}, token, "sample_data", "sample_data", shot, "next")
        frames, before, last, rows = frames[on], before[on], last[on], rows[on]
        t_ns = tables.t_ns
        wrong = ~((t_ns[before] < t_ns[rows]) & (t_ns[rows] < t_ns[last]))
        for k in np.flatnonzero(wrong)[:1]:
            raise UserError(
                f"sample_data.json record {tokens[int(before[k])]}: next must lie between it and "
                f"keyframe {tokens[int(last[k])]} in time, got {tokens[int(rows[k])]}; "
                "unpack the metadata archive again",
            )
        found.append((frames, rows))
        before = rows
    frames, rows = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(frames, kind="stable")
    return frames[order], rows[order]

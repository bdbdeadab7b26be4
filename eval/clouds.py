"""Colored point clouds for other programs: PLY files, and recordings for the rerun viewer."""

from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import write_atomically


def write_ply(path: Path, points: np.ndarray, colors: np.ndarray) -> None:
    """Write points [N, 3 or more] m with colors [N, 3] uint8 RGB as binary PLY.

    Raises:
        ValueError: not one color per point.
    """
    if colors.shape != (len(points), 3):
        raise ValueError(f"ply: colors must be [{len(points)}, 3], got {list(colors.shape)}")
    vertex = np.empty(
        len(points), [(n, "<f4") for n in "xyz"] + [(n, "u1") for n in ("red", "green", "blue")]
    )
    for column, name in enumerate("xyz"):
        vertex[name] = points[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        vertex[name] = colors[:, column]
    properties = [f"property float {n}" for n in "xyz"]
    properties += [f"property uchar {n}" for n in ("red", "green", "blue")]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties]
    write_atomically(path, ("\n".join([*head, "end_header", ""])).encode() + vertex.tobytes())


def write_rerun(path: Path, frames: list[tuple[str, np.ndarray, dict[str, np.ndarray]]]) -> None:
    """Write a recording for the rerun viewer; no window opens.

    Args:
        path: `.rrd` file.
        frames: (frame id, points [N, 4] m, layer name -> colors [N, 3] uint8) in order.

    Raises:
        UserError: rerun-sdk is not installed; says how to get it.
    """
    try:
        import rerun
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path}: package 'rerun-sdk' is not installed; run 'pip install rerun-sdk'"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".rrd.partial")
    recording = rerun.RecordingStream("selkie")
    recording.save(partial)
    for number, (frame_id, points, layers) in enumerate(frames):
        recording.set_time("frame", sequence=number)
        recording.log("frame", rerun.TextLog(frame_id))
        for name, colors in layers.items():
            cloud = rerun.Points3D(points[:, :3], colors=colors, radii=0.06)
            recording.log(f"lidar/{name}", cloud)
    recording.flush()
    recording.disconnect()
    partial.replace(path)

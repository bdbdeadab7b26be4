"""Waymo, version 2: the city's scans as range images of a TOP LiDAR, with their cameras.

The city's beams lie on a grid of inclination and azimuth, so a range image holds its points to
float precision, whatever the mount's yaw. The vehicle frame is the city's LiDAR frame with x ahead
instead of to the right, plus the mount's offset.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.geometry import rigid
from pipeline.image import encode_jpeg
from pipeline.manifest import Manifest
from pipeline.projection import project
from pipeline.synthetic.lidars import DEFAULT, LIDARS
from tests.pipeline.datasets.writers.drive import Moment, Written

T0 = 1_550_083_467_346_370  # us
NUM_RINGS = len(LIDARS[DEFAULT].elevation_deg)
NUM_COLUMNS = 360
DISTORTION = (0.03, -0.3, 0.001, -0.001, 0.0)
YAW_RAD, OFFSET_M = 2.59, np.array([1.43, 0.0, 2.18])  # of a real TOP's mount, about
AHEAD = rigid(np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]), OFFSET_M)  # T_vehicle_citylidar
# Waymo's camera axes (x ahead, y left, z up) from ours (x right, y down, z ahead).
AXES = rigid(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.zeros(3))


def write(path: Path, columns: dict) -> None:
    """Write one component's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)


def image_columns(kind: str, which: str, images: list, dtype) -> dict:
    """Return the values and shape columns of range images; None = null."""
    name = f"[{kind}].range_image_{which}"
    flat = [None if image is None else image.ravel().tolist() for image in images]
    shapes = [None if image is None else list(image.shape) for image in images]
    return {
        f"{name}.values": pa.array(flat, pa.list_(dtype)),
        f"{name}.shape": pa.array(shapes, pa.list_(pa.int32())),
    }


def angles(rotation: np.ndarray) -> list[float]:
    """Return roll, pitch, yaw of a rotation Rz Ry Rx."""
    return [
        np.arctan2(rotation[2, 1], rotation[2, 2]),
        -np.arcsin(rotation[2, 0]),
        np.arctan2(rotation[1, 0], rotation[0, 0]),
    ]


def to_range_image(moment: Moment) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of every point: row 0 is the highest ring, columns go clockwise."""
    x, y = moment.points[:, 0].astype(np.float64), moment.points[:, 1].astype(np.float64)
    turn = (np.arctan2(x, y) + np.pi) / (2 * np.pi)
    return NUM_RINGS - 1 - moment.ring.astype(int), np.rint(turn * NUM_COLUMNS - 0.5).astype(int)


def write_waymo(root: Path, scenes: list[list[Moment]], manifest: Manifest) -> list[Written]:
    """Write one training and one validation segment; every second frame is labeled."""
    written = []
    for split, folder, name, moments in (
        ("train", "training", "1000_2000_3000_4000", scenes[0]),
        ("val", "validation", "5000_6000_7000_8000", scenes[1]),
    ):
        written += write_segment(root / folder, name, split, moments, manifest)
    return written


def write_segment(
    base: Path, name: str, split: str, moments: list[Moment], manifest: Manifest
) -> list[Written]:
    """Write the components of one segment; return what must come back."""
    times = [T0 + k * 100_000 for k in range(len(moments))]
    T_vehicle_city = AHEAD
    poses = [m.T_world_lidar @ np.linalg.inv(T_vehicle_city) for m in moments]  # T_world_vehicle
    images, labels, pixels, written = [], [], [], []
    mounts = moments[0].cameras
    for k, moment in enumerate(moments):
        row, column = to_range_image(moment)
        order = np.lexsort((column, row))
        shape = (NUM_RINGS, NUM_COLUMNS)
        image = np.zeros((*shape, 4), np.float32)
        image[..., 0] = -1
        distance = np.linalg.norm(moment.points[:, :3].astype(np.float64), axis=1)
        image[row, column, 0], image[row, column, 1] = distance, moment.points[:, 3]
        semantic, instance = moment.semantic(manifest), moment.instance()
        label = np.zeros((*shape, 2), np.int32)
        label[row, column, 0], label[row, column, 1] = instance, semantic
        points = moment.points[order].copy()
        points[:, :3] = points[:, :3] @ AHEAD[:3, :3].T + OFFSET_M
        seen = tuple(lidar_to_camera(c) for c in moment.cameras)
        record = np.zeros((*shape, 6), np.int32)
        for slot, camera in enumerate(seen):
            uv = project(points, camera)
            here = uv[:, 0] >= 0
            at = 3 * (record[row[order], column[order], 0] > 0)  # a second camera goes second
            for axis, values in enumerate((np.full(len(uv), slot + 1), uv[:, 0], uv[:, 1])):
                record[row[order][here], column[order][here], at[here] + axis] = values[here]
        images.append(image)
        labels.append(label)
        pixels.append(record)
        is_labeled = k % 2 == 0
        frame_cameras = (*seen, *(None,) * 3) if seen else (None,) * 5
        written.append(
            Written(
                f"{name}/{k}",
                (split,) if split == "train" or is_labeled else (),
                points,
                semantic[order] if is_labeled else None,
                instance[order] if is_labeled else None,
                row[order],
                poses[k],
                times[k] * 1000,
                frame_cameras,
                (*moment.images, *(None,) * 3) if seen else (None,) * 5,
            )
        )
    key = {"key.segment_context_name": [name] * len(times), "key.frame_timestamp_micros": times}
    laser = key | {"key.laser_name": pa.array([1] * len(times), pa.int8())}
    none = [None] * len(times)
    f4, i4 = pa.float32(), pa.int32()
    write(
        base / f"lidar/{name}.parquet",
        laser
        | image_columns("LiDARComponent", "return1", images, f4)
        | image_columns("LiDARComponent", "return2", none, f4),
    )
    part = {k: [v[0], *v[2::2]] if isinstance(v, list) else v.take(list(range(0, len(v), 2)))
            for k, v in laser.items()}  # fmt: skip
    kind = "LiDARSegmentationLabelComponent"
    write(
        base / f"lidar_segmentation/{name}.parquet",
        part
        | image_columns(kind, "return1", labels[::2], i4)
        | image_columns(kind, "return2", none[::2], i4),
    )
    still = [
        np.broadcast_to(
            np.array([*angles(pose[:3, :3]), *pose[:3, 3]]), (NUM_RINGS, NUM_COLUMNS, 6)
        )
        for pose in poses
    ]
    # Doubles, where the release has floats: at a world coordinate of 1000 m floats are 0.06 mm off.
    write(
        base / f"lidar_pose/{name}.parquet",
        laser | image_columns("LiDARPoseComponent", "return1", still, pa.float64()),
    )
    write(
        base / f"lidar_camera_projection/{name}.parquet",
        laser
        | image_columns("LiDARCameraProjectionComponent", "return1", pixels, f4)
        | image_columns("LiDARCameraProjectionComponent", "return2", none, f4),
    )
    cos, sin = np.cos(YAW_RAD), np.sin(YAW_RAD)
    mount = rigid(np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]), OFFSET_M)
    write_lidar_calibration(base, name, [1], [mount])
    write(
        base / f"vehicle_pose/{name}.parquet",
        key | {"[VehiclePoseComponent].world_from_vehicle.transform": [p.ravel() for p in poses]},
    )
    write_cameras(base, name, times, moments, mounts, poses)
    return written


def write_lidar_calibration(base: Path, name: str, lasers: list, mounts: list) -> None:
    """Write the mounts; inclinations are those of the city's rings, lowest first."""
    kind = "[LiDARCalibrationComponent]"
    rings = np.radians(LIDARS[DEFAULT].elevation_deg)
    write(
        base / f"lidar_calibration/{name}.parquet",
        {
            "key.segment_context_name": [name] * len(lasers),
            "key.laser_name": pa.array(lasers, pa.int8()),
            f"{kind}.extrinsic.transform": [m.ravel() for m in mounts],
            f"{kind}.beam_inclination.min": [rings[0]] * len(lasers),
            f"{kind}.beam_inclination.max": [rings[-1]] * len(lasers),
            f"{kind}.beam_inclination.values": [rings.tolist(), *[None] * (len(lasers) - 1)],
        },
    )


def lidar_to_camera(camera):
    """Return a camera as the reader must give it: LiDAR frame = vehicle frame, Waymo's name."""
    name = {"CAM_FRONT": "FRONT", "CAM_FRONT_RIGHT": "FRONT_LEFT"}[camera.name]
    T_cam_vehicle = camera.T_cam_lidar @ np.linalg.inv(AHEAD)
    return replace(camera, name=name, T_cam_lidar=T_cam_vehicle, distortion=DISTORTION)


def write_cameras(base, name, times, moments, mounts, poses) -> None:
    """Write calibrations and images; each image has a vehicle pose of its own."""
    kind = "[CameraCalibrationComponent]"
    seen = [lidar_to_camera(c) for c in mounts]
    # The mounts were measured at some other time: half a meter on and turned a little.
    off = rigid(np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]]), np.array([0.5, 0.1, 0]))
    extrinsics = [off @ np.linalg.inv(c.T_cam_lidar) @ np.linalg.inv(AXES) for c in seen]
    numbers = pa.array([1, 2, 7], pa.int8())  # 7 belongs to another release
    values = {n: [v, v, v] for n, v in zip(("k1", "k2", "p1", "p2", "k3"), DISTORTION, strict=True)}
    for column, (i, j) in {"f_u": (0, 0), "f_v": (1, 1), "c_u": (0, 2), "c_v": (1, 2)}.items():
        shift = 0.5 if column.startswith("c") else 0.0
        values[column] = [*(c.K[i, j] + shift for c in seen), 0.0]
    write(
        base / f"camera_calibration/{name}.parquet",
        {"key.segment_context_name": [name] * 3, "key.camera_name": numbers}
        | {f"{kind}.intrinsic.{column}": v for column, v in values.items()}
        | {
            f"{kind}.extrinsic.transform": [*(e.ravel() for e in extrinsics), np.eye(4).ravel()],
            f"{kind}.width": [*(c.width for c in seen), 1],
            f"{kind}.height": [*(c.height for c in seen), 1],
        },
    )
    shots = [(k, n) for k, m in enumerate(moments) for n in range(len(m.images))]
    kind = "[CameraImageComponent]"
    write(
        base / f"camera_image/{name}.parquet",
        {
            "key.segment_context_name": [name] * len(shots),
            "key.frame_timestamp_micros": [times[k] for k, _ in shots],
            "key.camera_name": pa.array([n + 1 for _, n in shots], pa.int8()),
            f"{kind}.image": [encode_jpeg(moments[k].images[n]).tobytes() for k, n in shots],
            f"{kind}.pose.transform": [(poses[k] @ np.linalg.inv(off)).ravel() for k, _ in shots],
            f"{kind}.pose_timestamp": [times[k] * 1e-6 for k, _ in shots],
        },
    )

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.waymo import reader
from pipeline.datasets.waymo.components import Segment, record_path, split_record
from pipeline.datasets.waymo.range_image import LidarMount, points_of_image, rotations_of
from pipeline.errors import UserError
from pipeline.geometry import rigid
from pipeline.manifest import load_manifest
from pipeline.projection import keep_seen, project, project_with_depth
from tests.pipeline.datasets.writers.waymo import image_columns, write, write_waymo

MANIFEST = load_manifest("waymo")
PLAIN = LidarMount(np.eye(4), np.array([-0.1, 0.0, 0.2]), -0.1, 0.2)
TURNED = rigid(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([1.0, 2.0, 3.0]))
QUARTER = np.pi / 2


def one_return(row, column, range_m, shape=(3, 4)):
    ranges = np.zeros(shape)
    ranges[row, column] = range_m
    return ranges


def test_axis_order_by_hand():
    # Four columns lie at 135, 45, -45, -135 degrees (x ahead, y left); row 0 is the highest beam,
    # the last of the calibration's list.
    r = np.sqrt(2)
    at = [points_of_image(one_return(1, c, 2.0), PLAIN, None, np.eye(4))[0] for c in range(4)]
    np.testing.assert_allclose(at, [[-r, r, 0], [r, r, 0], [r, -r, 0], [-r, -r, 0]], atol=1e-12)
    high = points_of_image(one_return(0, 1, 2.0), PLAIN, None, np.eye(4))[0]
    low = points_of_image(one_return(2, 1, 2.0), PLAIN, None, np.eye(4))[0]
    np.testing.assert_allclose([high[2], low[2]], [2 * np.sin(0.2), 2 * np.sin(-0.1)])
    # A mount turned by 90 degrees does not turn the image: columns are counted from the vehicle.
    mount = LidarMount(TURNED, PLAIN.inclinations_rad, 0, 0)
    moved = points_of_image(one_return(1, 1, 2.0), mount, None, np.eye(4))[0]
    np.testing.assert_allclose(moved, [r + 1, r + 2, 3], atol=1e-12)


def test_inclinations_spread_evenly_where_none_are_listed():
    # 2 rows between -0.2 and 0.2: centers of the halves, -0.1 and 0.1, the higher first.
    mount = LidarMount(np.eye(4), None, -0.2, 0.2)
    points = points_of_image(np.full((2, 4), 1.0), mount, None, np.eye(4))
    np.testing.assert_allclose(points[[0, 4], 2], np.sin([0.1, -0.1]))
    with pytest.raises(ValueError, match="one per row, got 3 for 2 rows"):
        points_of_image(np.ones((2, 4)), PLAIN, None, np.eye(4))


def test_pixel_pose_by_hand():
    # The point lies at (r, r, 0) of a vehicle that is at (9, 0, 0), turned left by 90 degrees:
    # world (9 - r, r, 0). The frame's vehicle is at (10, 0, 0), unturned: (-1 - r, r, 0).
    r = np.sqrt(2)
    poses = np.zeros((3, 4, 6))
    poses[1, 1] = [0, 0, QUARTER, 9, 0, 0]
    T_world_vehicle = rigid(np.eye(3), np.array([10.0, 0, 0]))
    found = points_of_image(one_return(1, 1, 2.0), PLAIN, poses, T_world_vehicle)[0]
    np.testing.assert_allclose(found, [-1 - r, r, 0], atol=1e-12)


def test_rotations_by_hand():
    # Roll 90 takes y to z and z to -y; yaw 90 then takes -y to x.
    R = rotations_of(np.array([[QUARTER, 0, QUARTER]]))[0]
    np.testing.assert_allclose(R @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(R @ [0, 0, 1], [1, 0, 0], atol=1e-12)
    pitched = rotations_of(np.array([[0, QUARTER, 0]]))[0]  # nose down: x goes to -z
    np.testing.assert_allclose(pitched @ [1, 0, 0], [0, 0, -1], atol=1e-12)


def slow_points(ranges, mount, poses, T_world_vehicle):
    """Plain loops: one pixel after the other."""
    height, width = ranges.shape
    E, found = mount.T_vehicle_laser, []
    beams = list(reversed(mount.inclinations_rad))
    for row in range(height):
        for column in range(width):
            if not ranges[row, column] > 0:
                continue
            ratio = (width - column - 0.5) / width
            azimuth = (ratio * 2 - 1) * np.pi - np.arctan2(E[1, 0], E[0, 0])
            c, s = np.cos(beams[row]), np.sin(beams[row])
            p = ranges[row, column] * np.array([c * np.cos(azimuth), c * np.sin(azimuth), s, 0])
            p = E @ (p + [0, 0, 0, 1])
            roll, pitch, yaw, *t = poses[row, column]
            Rx = [[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]]
            Ry = [[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]]
            Rz = [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
            world = rigid(np.array(Rz) @ Ry @ Rx, np.array(t)) @ p
            found.append(np.linalg.solve(T_world_vehicle, world)[:3])
    return np.array(found)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_equal_to_the_slow_twin(seed):
    rng = np.random.default_rng(seed)
    ranges = rng.uniform(-20, 60, (5, 7))
    ranges[0, 0] = 7.0
    turn = rotations_of(rng.uniform(-3, 3, (2, 3)))
    mount = LidarMount(rigid(turn[0], rng.normal(size=3)), np.sort(rng.uniform(-0.4, 0.1, 5)), 0, 0)
    poses = rng.normal(size=(5, 7, 6))
    T_world_vehicle = rigid(turn[1], rng.normal(0, 100, 3))
    np.testing.assert_allclose(
        points_of_image(ranges, mount, poses, T_world_vehicle),
        slow_points(ranges, mount, poses, T_world_vehicle),
        atol=1e-9,
    )


def test_records_name_file_and_row():
    segment = Segment("training", "10_20")
    path = record_path(segment.path("lidar"), 155, "top-both")
    assert path == "training/lidar/10_20.parquet#155/top-both"
    assert split_record(path) == (segment, ["155", "top-both"])


@pytest.fixture
def waymo(drive, tmp_path):
    write_waymo(tmp_path, drive, MANIFEST)
    return tmp_path


def test_camera_axes_by_hand(waymo):
    # A camera without turn or offset, at poses that do not move: 5 m ahead, 1 m right and 1 m up
    # is at camera (1, -1, 5), so u = 100 - 0.5 + 50 / 5 and v = 60 - 0.5 - 50 / 5.
    path = waymo / "training/camera_calibration/1000_2000_3000_4000.parquet"
    table = pq.read_table(path)
    kind = "[CameraCalibrationComponent]"
    columns = {name: table[name] for name in table.column_names}
    columns[f"{kind}.extrinsic.transform"] = pa.array([np.eye(4).ravel()] * 3)
    for name, value in {"f_u": 50.0, "f_v": 50.0, "c_u": 100.0, "c_v": 60.0}.items():
        columns[f"{kind}.intrinsic.{name}"] = pa.array([value] * 3)
    write(path, columns)
    path = waymo / "training/camera_image/1000_2000_3000_4000.parquet"
    table, poses = (
        pq.read_table(path),
        pq.read_table(str(path).replace("camera_image", "vehicle_pose")),
    )
    times = poses["key.frame_timestamp_micros"].to_pylist()
    at = [times.index(t) for t in table["key.frame_timestamp_micros"].to_pylist()]
    name = "[CameraImageComponent].pose.transform"
    where = table.column_names.index(name)
    still = poses["[VehiclePoseComponent].world_from_vehicle.transform"].take(at)
    columns = [*table.columns[:where], still, *table.columns[where + 1 :]]
    write(path, dict(zip(table.column_names, columns, strict=True)))
    camera = reader.index(waymo, MANIFEST, "top")[0].cameras[0]
    u, v, w = camera.K @ (camera.T_cam_lidar @ [5, -1, 1, 1])[:3]
    np.testing.assert_allclose([u / w, v / w, w], [109.5, 49.5, 5], atol=1e-6)


def test_recorded_pixels_are_those_of_the_projection(waymo):
    frame = reader.index(waymo, MANIFEST, "top")[0]
    points = reader.load_points(waymo, frame.points_path).points
    uv = reader.load_pixels(waymo, frame)
    assert uv.shape == (5, len(points), 2) and uv.dtype == np.int16
    for slot in (0, 1):
        wanted = project(points, frame.cameras[slot])  # what the writer recorded, to float32
        same = (uv[slot] == wanted).all(axis=1)
        assert same.mean() > 0.999 and (wanted[:, 0] >= 0).sum() > 50
    assert (uv[2:] == -1).all()
    (waymo / "training/lidar_camera_projection/1000_2000_3000_4000.parquet").unlink()
    assert reader.load_pixels(waymo, frame) is None


def test_recorded_pixels_keep_the_rule():
    # depth above 1 m and strictly inside, as for projected ones
    uv = np.array([[5, 5], [0, 5], [9, 5], [5, 9], [5, 5]], np.int16)
    points = np.array([[2, 0, 0], [2, 0, 0], [2, 0, 0], [2, 0, 0], [0.9, 0, 0]], np.float32)
    look_ahead = rigid(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.zeros(3))
    from pipeline.types import Camera

    camera = Camera("c", "t", "p", 10, 10, np.eye(3), look_ahead, 0)
    assert keep_seen(uv, points, camera).tolist() == [[5, 5], *[[-1, -1]] * 4]
    assert project_with_depth(points, camera)[1].tolist() == pytest.approx([2, 2, 2, 2, 0.9])
    with pytest.raises(ValueError, match=r"uv must be \[4, 2\]"):
        keep_seen(uv, points[:4], camera)


def test_all_lidars_and_both_returns(waymo):
    # A second LiDAR (FRONT) with one row of four columns, and second returns of both.
    name = "1000_2000_3000_4000"
    path = waymo / f"training/lidar/{name}.parquet"
    table = pq.read_table(path).slice(0, 1)
    time = table["key.frame_timestamp_micros"][0].as_py()
    first = reader.array_of(
        table.rename_columns([c.removeprefix("[LiDARComponent].") for c in table.column_names]),
        "range_image_return1", 0,
    )  # fmt: skip
    second = np.zeros_like(first)
    second[3, 5, :2] = 4.0, 0.25
    front = np.zeros((1, 4, 4), np.float32)
    front[0, 1, :2] = 2.0, 0.5
    rows = {
        "key.segment_context_name": [name] * 2,
        "key.frame_timestamp_micros": [time] * 2,
        "key.laser_name": pa.array([2, 1], pa.int8()),  # in no order
    }
    f4 = pa.float32()
    rows |= image_columns("LiDARComponent", "return1", [front, first], f4)
    rows |= image_columns("LiDARComponent", "return2", [None, second], f4)
    write(path, rows)
    path = waymo / f"training/lidar_calibration/{name}.parquet"
    table = pq.read_table(path)
    more = {c: table[c].to_pylist() * 2 for c in table.column_names}
    more["key.laser_name"] = pa.array([1, 2], pa.int8())
    kind = "[LiDARCalibrationComponent]"
    more[f"{kind}.beam_inclination.values"][1] = None
    more[f"{kind}.beam_inclination.min"][1], more[f"{kind}.beam_inclination.max"][1] = -0.1, 0.1
    more[f"{kind}.extrinsic.transform"][1] = (
        rigid(np.eye(3), np.array([4.0, 0, 1])).ravel().tolist()
    )
    write(path, more)
    clouds = {}
    for version in MANIFEST.versions:
        frame = reader.index(waymo, MANIFEST, version)[0]
        clouds[version] = reader.load_points(waymo, frame.points_path)
        count = len(clouds[version].points)
        assert frame.max_points >= count
        labels = reader.load_labels(waymo, frame, count)
        assert len(labels.semantic) == count
    count = len(clouds["top"].points)
    assert [len(clouds[v].points) - count for v in MANIFEST.versions] == [0, 1, 1, 2]
    # FRONT's column 1 of 4 lies at 45 degrees; its one beam is level: 4 + sqrt 2, sqrt 2, 1
    np.testing.assert_allclose(clouds["all"].points[count], [4 + 2**0.5, 2**0.5, 1, 0.5], atol=1e-6)
    assert clouds["all"].ring[count] == 255
    both = clouds["all-both"]
    assert both.points[count, 3] == 0.5 and both.points[-1, 3] == 0.25  # FRONT first, then returns
    assert both.ring[-1] == 3
    assert labels.semantic[count] == 0 == labels.semantic[-1]  # neither has labels


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ("lidar_pose", r"must hold the components .*got no lidar_pose; download"),
        ("vehicle_pose", r"got no vehicle_pose; download"),
        ("lidar_calibration", r"got no lidar_calibration; download"),
    ],
)
def test_a_missing_component_is_named(waymo, component, message):
    folder = waymo / "training" / component
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(UserError, match=message):
        reader.index(waymo, MANIFEST, "top")


def test_half_a_download_is_counted_and_listed(waymo):
    # a second training segment of which only the LiDAR has arrived
    scan = waymo / "training/lidar/1000_2000_3000_4000.parquet"
    (waymo / "training/lidar/9.parquet").write_bytes(scan.read_bytes())
    with pytest.raises(UserError, match=r"got 7 missing: training/camera_calibration/9.parquet, "):
        reader.index(waymo, MANIFEST, "top")


def test_damaged_components_are_named(waymo):
    frame = reader.index(waymo, MANIFEST, "top")[0]
    path = waymo / "training/vehicle_pose/1000_2000_3000_4000.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        UserError, match="'vehicle_pose' must be a whole Parquet file, got ArrowInv"
    ):
        reader.index(waymo, MANIFEST, "top")
    path.write_bytes(whole)
    path = waymo / "training/lidar_pose/1000_2000_3000_4000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(UserError, match=r"must have frame \d+ of TOP once, got 0"):
        reader.load_points(waymo, frame.points_path)
    pq.write_table(table.select(table.column_names[:3]), path)
    with pytest.raises(
        UserError, match=r"'lidar_pose' must have the columns \[LiDARPoseComponent\].range"
    ):
        reader.load_points(waymo, frame.points_path)


def test_labels_of_another_size_are_refused(waymo):
    frame = reader.index(waymo, MANIFEST, "top")[0]
    path = waymo / "training/lidar_segmentation/1000_2000_3000_4000.parquet"
    table = pq.read_table(path)
    small = image_columns(
        "LiDARSegmentationLabelComponent", "return1", [np.zeros((2, 3, 2))] * len(table), pa.int32()
    )
    write(path, {c: small.get(c, table[c]) for c in table.column_names})
    with pytest.raises(UserError, match=r"labels must be \[32, 360, 2\], got \[2, 3, 2\]"):
        reader.load_labels(waymo, frame, frame.max_points)


def test_the_folders_of_the_splits_are_the_manifests(waymo):
    flat = replace(MANIFEST, split_folders={".": "train"})
    frames = reader.index(waymo / "training", flat, "top")
    assert frames[0].points_path.startswith("./lidar/1000_2000_3000_4000.parquet#")
    assert frames[0].splits[0] == "train"
    assert len(reader.load_points(waymo / "training", frames[0].points_path).points) > 100


def test_a_wrong_root_names_what_it_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"must hold training/lidar/\*.parquet or validation/lidar"):
        reader.index(tmp_path, MANIFEST, "top")

"""Waymo's components with a file, a row, a column or a value missing: one line that names it."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets.waymo import reader
from pipeline.errors import UserError
from pipeline.manifest import load_manifest
from tests.pipeline.datasets.writers.waymo import write_waymo

MANIFEST = load_manifest("waymo")
NAME = "1000_2000_3000_4000"
RETURN1 = "range_image_return1"
TIME, LASER, CAMERA = "key.frame_timestamp_micros", "key.laser_name", "key.camera_name"


@pytest.fixture
def waymo(drive, tmp_path):
    write_waymo(tmp_path, drive, MANIFEST)
    return tmp_path


def damage(root, component, change):
    path = root / f"training/{component}/{NAME}.parquet"
    pq.write_table(change(pq.read_table(path)), path, row_group_size=2)


def put(suffix, value):
    """A change of the first row: column `suffix` gets a value."""

    def change(table):
        at = next(k for k, name in enumerate(table.column_names) if name.endswith(suffix))
        values = table.column(at).to_pylist()
        values[0] = value
        field = table.schema.field(at)
        return table.set_column(at, field, pa.array(values, field.type))

    return change


def without(column):
    return lambda table: table.drop_columns([column])


def without_first(table):
    return table.slice(1)


@pytest.mark.parametrize(
    ("component", "change", "message"),
    [
        ("lidar", without(TIME), f"'lidar' must have the columns {TIME}, got none"),
        ("vehicle_pose", without(TIME), f"must have the columns {TIME}, got none"),
        ("lidar_calibration", without(LASER), f"must have the columns {LASER}, got none"),
        ("camera_image", without(CAMERA), f"must have the columns {CAMERA}, got none"),
        ("camera_calibration", without(CAMERA), f"must have the columns {CAMERA}, got none"),
        ("lidar_segmentation", without(TIME), f"must have the columns {TIME}, got none"),
        ("lidar_calibration", without_first, r"must have laser 1 of lidar, got none"),
        ("camera_calibration", without_first, r"must have camera FRONT, which has images, got FR"),
        ("lidar_pose", without_first, r"must have every frame of lidar, got 1 without, .*346370"),
        ("lidar_camera_projection", without_first, r"must have every frame of lidar, got 1 with"),
        ("lidar", lambda table: table.slice(0, 0), r"must have a frame, got no row"),
        ("camera_calibration", put("f_u", None), r"'camera_calibration' .*f_u in every row, got 1"),
        ("camera_calibration", put("width", None), r"must have width in every row, got 1 of 3"),
        ("camera_image", put("pose_timestamp", None), r"must have pose_timestamp in every row"),
        ("vehicle_pose", put("transform", None), r"world_from_vehicle.transform in every row"),
        ("vehicle_pose", put("transform", [1.0]), rf"vehicle_pose/{NAME}.*must be 16 numbers"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_refused_by_the_index(waymo, component, change, message):
    damage(waymo, component, change)
    with pytest.raises(UserError, match=message) as caught:
        reader.index(waymo, MANIFEST, "top")
    assert f"training/{component}/{NAME}.parquet" in str(caught.value)


@pytest.mark.parametrize(
    ("component", "change", "message"),
    [
        ("lidar", put(f"{RETURN1}.values", None), "lidar must have a range image, got only null"),
        ("lidar", put(f"{RETURN1}.values", [1.0]), rf"lidar/{NAME}.*must fill the shape .*, got 1"),
        ("lidar", put(f"{RETURN1}.shape", [32, 1440]), r"\[rows, columns, 2 or more\], got \[32"),
        ("lidar_pose", put(f"{RETURN1}.values", None), r"poses must be \[32, 360, 6\], got None"),
        ("lidar_pose", put(f"{RETURN1}.shape", [360, 32, 6]), r"must be .*, got \[360, 32, 6\]"),
        ("lidar_calibration", put("inclination.values", [0.1, 0.2]), "32 inclinations, got 2"),
        ("lidar_calibration", put("extrinsic.transform", None), "extrinsic.transform in every row"),
        ("lidar_calibration", lambda t: put("max", None)(put("inclination.values", None)(t)),
         "inclinations, or min and max, got neither for laser 1"),
    ],
)  # fmt: skip
def test_a_damaged_frame_is_refused(waymo, component, change, message):
    frame = reader.index(waymo, MANIFEST, "top")[0]
    damage(waymo, component, change)
    with pytest.raises(UserError, match=message):
        reader.load_points(waymo, frame.points_path)


def test_recorded_pixels_and_images_that_are_not_there_are_refused(waymo):
    frame = reader.index(waymo, MANIFEST, "top")[0]
    damage(waymo, "lidar_camera_projection", without_first)
    with pytest.raises(UserError, match=r"must have frame \d+ of laser 1, got none"):
        reader.load_pixels(waymo, frame)
    damage(waymo, "camera_image", put("].image", None))
    with pytest.raises(UserError, match="must have image in every row, got 1 of 1 null"):
        reader.load_image(waymo, frame.cameras[0])


def test_images_without_any_calibration_are_told(waymo):
    shutil.rmtree(waymo / "training/camera_calibration")
    with pytest.raises(UserError, match=r"training: must hold .*, got no camera_calibration; dow"):
        reader.index(waymo, MANIFEST, "top")
    shutil.rmtree(waymo / "training/camera_image")
    assert not any(reader.index(waymo, MANIFEST, "top")[0].cameras)


def test_a_segment_without_its_lidar_is_missed(waymo):
    (waymo / f"training/lidar/{NAME}.parquet").unlink()
    with pytest.raises(UserError, match=f"got 1 missing: training/lidar/{NAME}.parquet; download"):
        reader.index(waymo, MANIFEST, "top")
    (waymo / "training/lidar").rmdir()
    with pytest.raises(UserError, match=r"must hold the components .*got no lidar; download"):
        reader.index(waymo, MANIFEST, "top")

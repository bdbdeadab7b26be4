import dataclasses

import numpy as np
import orjson
import pytest

from pipeline.datasets import nuscenes
from pipeline.errors import UserError
from pipeline.index_table import to_frames, to_table
from pipeline.manifest import load_manifest
from pipeline.splits import split_names
from tests.pipeline.datasets.plain_nuscenes import plain_frames
from tests.pipeline.datasets.tiny_nuscenes import make_tables, write_tables

MANIFEST = load_manifest("nuscenes")


def index(root, tables=None, manifest=MANIFEST):
    write_tables(root, make_tables() if tables is None else tables)
    return to_frames(nuscenes.index(root, manifest, "v1.0-mini"), split_names(manifest))


def at(matrix, point):
    return (matrix @ [*point, 1])[:3]


def test_frames_come_in_file_order_of_scenes_then_time(tmp_path):
    frames = index(tmp_path)
    assert [f.frame_id for f in frames] == [
        "scene-0061/0",
        "scene-0061/1",
        "scene-0061/2",
        "scene-0003/0",
    ]
    assert [f.successor_id for f in frames] == ["scene-0061/1", "scene-0061/2", None, None]
    assert [f.max_points for f in frames] == [2, 2, 2, 3]
    assert frames[1].t_ns == 1_500_000_000
    assert frames[0].splits == ("train", "mini_train", "slidr_train", "full")
    assert frames[3].splits == ("val",)
    assert frames[0].label_path is None and nuscenes.load_labels(tmp_path, frames[0], 2) is None


def test_cameras_fill_the_slots_of_the_manifest(tmp_path):
    cameras = index(tmp_path)[0].cameras
    assert [c.name if c else None for c in cameras] == ["CAM_FRONT", *[None] * 5]
    assert (cameras[0].height, cameras[0].width) == (6, 8)
    assert cameras[0].token == "scene-0061-s0-front"  # the keyframe's image, not the one after


def test_pose_chain_by_hand(tmp_path):
    # LiDAR (5, 1, 0) -> ego at LiDAR time (6, 1, 2) -> world: a quarter turn left gives (-1, 6, 2),
    # plus (10, 20, 0) = (9, 26, 2) -> ego at camera time: minus (10, 21, 0), turned back: (5, 1, 2)
    # -> minus the mount (3, 1, 0.5) -> camera axes (-1, -0.5, 3). One ego pose would give depth 4.
    frame = index(tmp_path)[0]
    np.testing.assert_allclose(at(frame.T_world_lidar, [5, 1, 0]), [9, 26, 2], atol=1e-12)
    camera = frame.cameras[0]
    np.testing.assert_allclose(at(camera.T_cam_lidar, [5, 1, 0]), [-1, -0.5, 3], atol=1e-12)
    assert camera.K.tolist() == [[10, 0, 4], [0, 10, 3], [0, 0, 1]]
    assert camera.t_ns - frame.t_ns == 40_000_000


def test_sweeps_lie_strictly_between_and_in_the_keyframes_frame(tmp_path):
    frames = index(tmp_path)
    assert [s.path for s in frames[0].sweeps] == ["samples/scene-0061-s0-sweep.pcd.bin"]
    # Half a meter further along the ego's forward axis, which is the LiDAR's x here.
    np.testing.assert_allclose(
        at(frames[0].sweeps[0].T_lidar_sweep, [1, 2, 3]), [1.5, 2, 3], atol=1e-12
    )
    assert frames[2].sweeps == () == frames[3].sweeps
    wide = dataclasses.replace(MANIFEST, pair_gap=2)
    frames = index(tmp_path, manifest=wide)
    assert frames[0].successor_id == "scene-0061/2" and frames[1].successor_id is None
    assert [s.path[8:-8] for s in frames[0].sweeps] == [
        "scene-0061-s0-sweep",
        "scene-0061-s1-lidar",
        "scene-0061-s1-sweep",
    ]


def test_a_set_without_sweeps_has_successors_all_the_same(tmp_path):
    tables = make_tables()
    tables["sample_data"] = [r for r in tables["sample_data"] if not r["token"].endswith("-sweep")]
    for row in tables["sample_data"]:
        row["next"] = ""
    frames = index(tmp_path, tables)
    assert frames[0].sweeps == () and frames[0].successor_id == "scene-0061/1"


@pytest.mark.parametrize(
    ("table", "row", "field", "target"),
    [
        ("sample_data", 0, "ego_pose_token", "ego_pose"),
        ("sample_data", 0, "calibrated_sensor_token", "calibrated_sensor"),
        ("sample_data", 0, "next", "sample_data"),
        ("calibrated_sensor", 1, "sensor_token", "sensor"),
        ("scene", 1, "first_sample_token", "sample"),
        ("sample", 0, "next", "sample"),
    ],
)
def test_a_dangling_token_is_named_with_its_record(tmp_path, table, row, field, target):
    tables = make_tables()
    tables[table][row][field] = "nowhere"
    token = tables[table][row]["token"]
    message = (
        f"{table}.json record {token}: {field} must be a token of {target}.json, got 'nowhere'"
    )
    with pytest.raises(UserError, match=message):
        index(tmp_path, tables)


def test_tables_that_run_in_circles_or_lack_things_are_refused(tmp_path):
    tables = make_tables()
    tables["sample"][2]["next"] = "scene-0061-s0"
    with pytest.raises(
        UserError, match="record scene-0061-s0: next must lead on in time, got a circle"
    ):
        index(tmp_path, tables)
    tables = make_tables()
    tables["sample_data"][0]["next"] = tables["sample_data"][0]["token"]
    with pytest.raises(UserError, match="record scene-0061-s0-lidar: next must lie between"):
        index(tmp_path, tables)
    tables = make_tables()
    del tables["sample_data"][0]
    with pytest.raises(UserError, match="sample scene-0061-s0 must have a LIDAR_TOP keyframe"):
        index(tmp_path, tables)
    tables = make_tables()
    tables["ego_pose"][0]["rotation"] = [0, 0, 0, 0]
    with pytest.raises(UserError, match="ego_pose.json record scene-0061-s0-lidar-ego: rotation"):
        index(tmp_path, tables)
    tables = make_tables()
    tables["calibrated_sensor"][1]["camera_intrinsic"] = []
    with pytest.raises(UserError, match="record cs-f: camera_intrinsic of CAM_FRONT must be 3x3"):
        index(tmp_path, tables)
    tables = make_tables()
    del tables["scene"][0]["name"]
    with pytest.raises(UserError, match=r"scene.json: record scene-0061 must have 'name'"):
        index(tmp_path, tables)


@pytest.mark.parametrize("text", ["true", '[{"token": "a"', "[1]", ""])
@pytest.mark.parametrize("table", ["sample", "sample_data"])
def test_broken_json_names_the_table(tmp_path, table, text):
    write_tables(tmp_path, make_tables())
    (tmp_path / f"v1.0-mini/{table}.json").write_text(text)
    with pytest.raises(
        UserError, match=rf"/{table}\.json: table must be a JSON list of records, got"
    ):
        nuscenes.index(tmp_path, MANIFEST, "v1.0-mini")
    (tmp_path / f"v1.0-mini/{table}.json").unlink()
    with pytest.raises(UserError, match=rf"/{table}\.json: table must be a readable file"):
        nuscenes.index(tmp_path, MANIFEST, "v1.0-mini")


def drawn_tables(rng):
    """Tables with drawn poses, shuffled rows and a camera image that some keyframes lack."""
    tables = make_tables()
    for row in tables["ego_pose"]:
        row["rotation"], row["translation"] = (
            rng.normal(size=4).tolist(),
            rng.normal(size=3).tolist(),
        )
    lost = ["scene-0061-s1-front", "scene-0003-s0-front"]
    tables["sample_data"] = [row for row in tables["sample_data"] if row["token"] not in lost]
    for name in ("sample_data", "ego_pose", "calibrated_sensor", "sample"):
        order = rng.permutation(len(tables[name]))
        rows = [tables[name][k] for k in order]
        tables[name] = [dict(sorted(row.items(), reverse=bool(rng.integers(2)))) for row in rows]
    return tables


@pytest.mark.parametrize("pair_gap", [1, 2])
@pytest.mark.parametrize("style", ["plain", "escaped", "compact", "no camera"])
def test_columns_are_those_of_the_plain_twin(tmp_path, pair_gap, style):
    tables = drawn_tables(np.random.default_rng(pair_gap))
    if style == "no camera":
        tables["sample_data"] = [r for r in tables["sample_data"] if "front" not in r["token"]]
    write_tables(tmp_path, tables)
    for path in (tmp_path / "v1.0-mini").glob("*.json"):
        rows = orjson.loads(path.read_bytes())
        text = orjson.dumps(rows).decode() if style == "compact" else path.read_text()
        if style == "escaped":  # a dash in a token or a path, spelled with an escape here and there
            half = len(text) // 2
            text = text[:half] + text[half:].replace("s1-lidar", "s1\\u002dlidar")
            text = text.replace("/scene-0061-s2", "\\/scene-0061-s2")
        path.write_text(text)
        assert orjson.loads(path.read_bytes()) == rows
    manifest = dataclasses.replace(MANIFEST, pair_gap=pair_gap)
    table = nuscenes.index(tmp_path, manifest, "v1.0-mini")
    wanted = to_table(plain_frames(tmp_path, manifest, "v1.0-mini"), split_names(manifest))
    for name in table.schema.names:
        assert table[name].to_pylist() == wanted[name].to_pylist(), name
    assert table.equals(wanted)


@pytest.mark.parametrize(
    "table, field, value, wanted",
    [
        (
            "sample_data",
            "timestamp",
            "1532402927647951",
            "'timestamp' of int, got 'timestamp' of str",
        ),
        ("sample_data", "sample_token", None, "'sample_token' of str, got"),
        ("sample_data", "is_key_frame", 1, "'is_key_frame' of bool, got"),
        ("sample_data", "next", 5, "'next' of str, got"),
        ("sample_data", "height", "6", "height and width of CAM_FRONT must be positive"),
        ("ego_pose", "translation", None, "'translation' of list, got"),
        ("ego_pose", "translation", [1, None, 2], "must be 4 and 3 numbers"),
        ("ego_pose", "rotation", [1, 0, 0], "must be 4 and 3 numbers"),
        ("ego_pose", "rotation", [0, 0, 0, 0], "must be 4 and 3 numbers"),
        ("calibrated_sensor", "translation", ["a", 1, 2], "must be 4 and 3 numbers"),
        ("calibrated_sensor", "camera_intrinsic", "K", "'camera_intrinsic' of list, got"),
        ("calibrated_sensor", "camera_intrinsic", [["a", 1], [2]], "camera_intrinsic of CAM_FRONT"),
        ("sample", "next", None, "'next' of str, got 'next' of NoneType"),
        ("scene", "name", 61, "'name' of str, got"),
        ("sensor", "channel", ["LIDAR_TOP"], "'channel' of str, got"),
    ],
)
def test_values_of_another_type_are_one_line(tmp_path, table, field, value, wanted):
    tables = make_tables()
    for row in tables[table]:
        row[field] = value
    with pytest.raises(UserError, match=wanted) as told:
        index(tmp_path, tables)
    assert "\n" not in str(told.value) and f"{table}.json" in str(told.value)


def test_missing_scans_are_counted_and_the_first_ten_listed(tmp_path):
    write_tables(tmp_path, make_tables())
    for path in (tmp_path / "samples").glob("scene-0061-s*-lidar.pcd.bin"):
        path.unlink()
    with pytest.raises(UserError, match="got 3 missing: samples/scene-0061-s0-lidar.pcd.bin, "):
        nuscenes.index(tmp_path, MANIFEST, "v1.0-mini")


def labelled(root, names):
    """Tables with lidarseg and panoptic for the first keyframe; `names` by installed index."""
    tables = make_tables()
    token = "scene-0061-s0-lidar"
    tables["category"] = [{"token": n, "name": n, "index": k} for k, n in names.items()]
    tables["lidarseg"] = [
        {"token": token, "sample_data_token": token, "filename": f"lidarseg/v1.0-mini/{token}.bin"}
    ]
    tables["panoptic"] = [
        {"token": token, "sample_data_token": token, "filename": f"panoptic/v1.0-mini/{token}.npz"}
    ]
    for folder in ("lidarseg", "panoptic"):
        (root / folder / "v1.0-mini").mkdir(parents=True)
    (root / f"lidarseg/v1.0-mini/{token}.bin").write_bytes(bytes([17, 25]))
    np.savez(root / f"panoptic/v1.0-mini/{token}.npz", data=np.array([17003, 25000], np.uint16))
    return tables


def test_labels_and_instances(tmp_path):
    frames = index(tmp_path, labelled(tmp_path, MANIFEST.raw_names))
    labels = nuscenes.load_labels(tmp_path, frames[0], 2)
    assert labels.semantic.tolist() == [17, 25] and labels.semantic.dtype == np.uint16
    assert labels.instance.tolist() == [17003, 0]
    assert frames[1].label_path is None
    with pytest.raises(UserError, match="labels must be one per point, got 2 for 3 points"):
        nuscenes.load_labels(tmp_path, frames[0], 3)


def test_a_foreign_numbering_is_translated_by_name(tmp_path):
    # The devkit's annotator page calls 25 sidewalk; the manifest's number for it is 26.
    names = MANIFEST.raw_names | {25: "flat.sidewalk", 26: "flat.terrain", 27: "flat.other"}
    frames = index(tmp_path, labelled(tmp_path, names))
    assert nuscenes.load_labels(tmp_path, frames[0], 2).semantic.tolist() == [17, 26]


def test_an_id_that_no_category_has_stays_what_it_is(tmp_path):
    """So that `index` names it; as 0 it would pass for noise."""
    frames = index(tmp_path, labelled(tmp_path, MANIFEST.raw_names))
    (tmp_path / frames[0].label_path).write_bytes(bytes([17, 200]))
    semantic = nuscenes.load_labels(tmp_path, frames[0], 2).semantic
    assert semantic.tolist() == [17, 200]
    assert MANIFEST.unknown_ids(semantic).tolist() == [200]


def test_categories_that_do_not_fit_are_refused(tmp_path):
    tables = labelled(tmp_path, MANIFEST.raw_names)
    del tables["category"][3]["index"]
    with pytest.raises(UserError, match="'human.pedestrian.child' must have 'index'.*lidarseg"):
        index(tmp_path, tables)
    for odd in (300, -1, "3", None):
        tables["category"][3]["index"] = odd
        with pytest.raises(UserError, match=f"must have 'index' of 0..255, got {odd}"):
            index(tmp_path, tables)
    tables["category"][3] |= {"index": 3, "name": "vehicle.hover"}
    with pytest.raises(UserError, match="'vehicle.hover'"):
        index(tmp_path, tables)


@pytest.mark.data("nuscenes")
def test_real_keyframe_projects_onto_the_known_number_of_points(recordings):
    (frame,) = to_frames(nuscenes.index(recordings, MANIFEST, "v1.0-mini"), split_names(MANIFEST))
    cloud = nuscenes.load_points(recordings, frame.points_path)
    assert cloud.points.shape == (34688, 4) and frame.max_points == 34688
    assert cloud.ring.max() == 31 and cloud.points[:, 3].max() <= 255
    points = np.c_[cloud.points[:, :3].astype(np.float64), np.ones(34688)]
    counts = {}
    for camera in frame.cameras:
        points_cam = (points @ camera.T_cam_lidar.T)[:, :3]
        u, v = ((points_cam @ camera.K.T)[:, :2] / points_cam[:, 2:]).T
        seen = (points_cam[:, 2] > 1) & (u > 0) & (u < camera.width - 1)
        counts[camera.name] = int((seen & (v > 0) & (v < camera.height - 1)).sum())
        assert nuscenes.load_image(recordings, camera).shape == (900, 1600, 3)
    assert counts == {
        "CAM_FRONT": 3056,
        "CAM_FRONT_RIGHT": 3076,
        "CAM_BACK_RIGHT": 3370,
        "CAM_BACK": 4822,
        "CAM_BACK_LEFT": 4091,
        "CAM_FRONT_LEFT": 3700,
    }

"""The tiny city on disk: complete, repeatable, and geometrically what its tables say."""

import fcntl
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from pipeline.errors import UserError
from pipeline.synthetic import write
from pipeline.synthetic.find import find_city
from pipeline.synthetic.lidars import LIDARS
from pipeline.synthetic.nuscenes_names import CATEGORIES
from pipeline.synthetic.sensors import beams, draw_rig
from pipeline.synthetic.write import SIZES, VERSION, synthesize
from tests.pipeline.synthetic.city_tables import City, train_ids

THING_CATEGORIES = {2, 3, 4, 9, 12, 14, 15, 16, 17, 18, 21, 22, 23}


def _hashes(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def tiny(city):
    return City(city)


@pytest.fixture(scope="module")
def frames(tiny):
    return tiny.keyframes()


def test_same_seed_same_bytes_whatever_the_threads(city, tmp_path):
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        synthesize(tmp_path / "again", "tiny", 0)
    finally:
        numba.set_num_threads(before)
    assert _hashes(tmp_path / "again") == _hashes(city)


def test_other_seed_is_another_city(city, tmp_path):
    synthesize(tmp_path / "other", "tiny", 1)
    one, two = City(city), City(tmp_path / "other")
    assert not set(one.by_token["sample_data"]) & set(two.by_token["sample_data"])
    assert not np.array_equal(one.keyframes()[0].points, two.keyframes()[0].points)


@pytest.mark.slow
def test_another_lidar_sees_the_same_city(city, tmp_path):
    """64 uneven beams, lower and turned by 90 degrees: other scans of the very same drives."""
    synthesize(tmp_path / "other", "tiny", 0, "beams64")
    one, two = City(city), City(tmp_path / "other")
    images = [
        {str(p.relative_to(c.root)): p.read_bytes() for p in c.root.glob("samples/CAM_*/*")}
        for c in (one, two)
    ]
    assert images[0] == images[1] and len(images[0]) == 48
    for before, after in zip(one.keyframes(), two.keyframes(), strict=True):
        assert np.array_equal(np.unique(after.points[:, 4]), np.arange(64))
        assert len(after.points) > 1.5 * len(before.points)
        xyz = after.points[:, :3]
        elevation = np.degrees(np.arcsin(xyz[:, 2] / np.linalg.norm(xyz, axis=1)))
        beam = np.array(LIDARS["beams64"].elevation_deg)[after.points[:, 4].astype(int)]
        np.testing.assert_allclose(elevation, beam, atol=1e-3)
        assert abs(np.median(xyz[after.raw == 24, 2]) + 1.73) < 0.25
        mount = two.T_ego_sensor(after.lidar)
        np.testing.assert_allclose(mount[:3, 0], [1, 0, 0], atol=0.02)  # x is forward
        # the calibration fits: what both see of houses stands where it stood
        near = np.linalg.norm(before.points[:, :3], axis=1) < 25
        level = before.points[:, 2] < 0
        walls = before.points[(before.raw == 28) & near & level, :3], xyz[after.raw == 28]
        poses = before.T_world_lidar, after.T_world_lidar
        here, there = (p @ T[:3, :3].T + T[:3, 3] for p, T in zip(walls, poses, strict=True))
        assert len(here) > 20
        assert np.median(cKDTree(there).query(here)[0]) < 0.4


def test_a_mount_carries_its_beams_and_place():
    """Same draws for both LiDARs: the cameras are the same to the last bit."""
    rigs = [draw_rig(np.random.default_rng(3), 112, 208, LIDARS[name]) for name in LIDARS]
    assert [len(rig[0].elevation_deg) for rig in rigs] == [32, 64]
    assert [round(rig[0].translation[2], 1) for rig in rigs] == [1.8, 1.7]
    for one, other in zip(*(rig[1:] for rig in rigs), strict=True):
        assert one.elevation_deg == () and np.array_equal(one.K, other.K)
        assert np.array_equal(one.translation, other.translation)
    directions, rings = beams(LIDARS["beams64"].elevation_deg, 2)
    assert directions.shape == (128, 3) and rings[:65].tolist() == [*range(64), 0]
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    np.testing.assert_allclose(np.degrees(np.arcsin(directions[[0, 63], 2])), [-24.33, 2.0])


def test_city_of_another_lidar_has_a_version_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNTHETIC_ROOT", raising=False)
    assert find_city(None, "full-7-beams64", make=False) == (
        Path("data/city-full-7-beams64"),
        "full-7-beams64",
    )
    assert find_city(None, "full", make=False)[1] == "full"
    (tmp_path / "mine").mkdir()
    note = {"size": "tiny", "seed": 0, "version": VERSION, "lidar": "beams64"}
    (tmp_path / "mine/city.json").write_text(json.dumps(note))
    assert find_city("mine", None, make=False)[1] == "tiny-0-beams64"
    with pytest.raises(UserError, match=r"LIDAR one of beams32, beams64, got 'tiny-0-beam64'"):
        find_city(None, "tiny-0-beam64", make=False)


def test_complete_city_is_left_alone(city):
    note = city / "city.json"
    assert json.loads(note.read_text()) == {"size": "tiny", "seed": 0, "version": VERSION}
    before, start = note.stat().st_mtime_ns, time.monotonic()
    synthesize(city, "tiny", 0)
    assert note.stat().st_mtime_ns == before and time.monotonic() - start < 1.0


def test_refusals(city, tmp_path):
    with pytest.raises(UserError, match=r"city must be size tiny, seed 7, .*got size tiny, seed 0"):
        synthesize(city, "tiny", 7)
    with pytest.raises(UserError, match="unknown name 'tny'; did you mean 'tiny'"):
        synthesize(tmp_path / "a", "tny", 0)
    with pytest.raises(UserError, match="unknown name 'beams46'; did you mean 'beams64'"):
        synthesize(tmp_path / "a", "tiny", 0, "beams46")
    with pytest.raises(UserError, match="seed must be >= 0, got -1"):
        synthesize(tmp_path / "a", "tiny", -1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="got something else; remove the folder or choose another"):
        synthesize(tmp_path / "mine", "tiny", 0)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(root, *_):
        (root / "half").write_text("")
        raise RuntimeError("disk full")

    monkeypatch.setattr(write, "_write_city", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        synthesize(tmp_path / "city", "tiny", 0)
    assert os.listdir(tmp_path) == []


def test_what_a_killed_command_left_is_removed_and_what_is_being_made_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_write_city", lambda *_: None)
    for name in ("dead", "alive", "young"):
        folder = tmp_path / f".city.{name}.partial"
        (folder / "samples").mkdir(parents=True)
        if name != "young":
            os.utime(folder, (0, 0))
    alive = os.open(tmp_path / ".city.alive.partial", os.O_RDONLY)
    fcntl.flock(alive, fcntl.LOCK_EX)
    write.synthesize(tmp_path / "city", "tiny", 0)
    os.close(alive)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".city.alive.partial", ".city.young.partial", "city"]


def test_tables_hang_together(tiny, city):
    size = SIZES["tiny"]
    tables, tokens = tiny.tables, tiny.by_token
    assert [record["name"] for record in tables["category"]] == CATEGORIES
    assert [record["index"] for record in tables["category"]] == list(range(32))
    assert len(tables["scene"]) == size.num_train + size.num_val
    assert set(tables["splits"]["train"]).isdisjoint(tables["splits"]["val"])
    for name, records in tables.items():
        if isinstance(records, list):
            assert len({record["token"] for record in records}) == len(records), name
    for scene in tables["scene"]:
        chain, token = [], scene["first_sample_token"]
        while token:
            chain.append(token)
            token = tokens["sample"][token]["next"]
        assert len(chain) == scene["nbr_samples"] and chain[-1] == scene["last_sample_token"]
    for record in tables["sample_data"]:
        assert (city / record["filename"]).is_file()
        if record["next"]:
            later = tokens["sample_data"][record["next"]]
            assert later["prev"] == record["token"] and later["timestamp"] > record["timestamp"]
            assert tiny.channel(later) == tiny.channel(record)
    for record in tables["sample_annotation"]:
        instance = tokens["instance"][record["instance_token"]]
        assert instance["category_token"] in tokens["category"]
        if record["next"]:
            later = tokens["sample_annotation"][record["next"]]
            assert later["instance_token"] == record["instance_token"]


def test_every_sensor_has_its_own_time(tiny, frames):
    for frame in frames:
        times = [frame.lidar["timestamp"]] + [c["timestamp"] for c in frame.cameras.values()]
        assert len(set(times)) == 7
        early = [frame.lidar["timestamp"] - c["timestamp"] for c in frame.cameras.values()]
        assert min(early) >= -500 and 40_000 < max(early) < 50_000
        pose = tiny.by_token["ego_pose"][frame.lidar["ego_pose_token"]]
        assert pose["timestamp"] == frame.lidar["timestamp"] and pose["translation"][2] == 0.0


def test_scans_look_like_nuscenes(tiny, frames):
    for frame in frames:
        assert len(frame.points) == len(frame.raw) > 7000
        xyz, intensity, ring = frame.points[:, :3], frame.points[:, 3], frame.points[:, 4]
        assert np.array_equal(np.unique(ring), np.arange(32))
        assert intensity.min() >= 0 and intensity.max() <= 255
        range_lidar = np.linalg.norm(xyz, axis=1)
        elevation = np.degrees(np.arcsin(xyz[:, 2] / range_lidar))
        expected = np.linspace(-30.67, 10.67, 32)[ring.astype(int)]
        np.testing.assert_allclose(elevation, expected, atol=1e-3)
        # Clockwise from above, beginning behind the car.
        azimuth = np.arctan2(xyz[:, 0], xyz[:, 1])
        assert (np.diff(azimuth) > -1e-5).all()
        road = frame.raw == 24
        assert abs(np.median(xyz[road, 2]) + 1.84) < 0.25
    assert {int(raw) for frame in frames for raw in np.unique(frame.raw)} <= set(range(32))


def test_classes_are_many_and_long_tailed(frames):
    raw = np.concatenate([frame.raw for frame in frames])
    counts = np.bincount(train_ids()[raw], minlength=256)
    assert (counts[:16] > 0).sum() >= 12
    shares = np.sort(counts[:16])[::-1] / counts.sum()
    assert shares[0] > 0.2 and (shares < 0.01).sum() >= 4
    assert counts[255] / counts.sum() < 0.03


def test_instances_keep_their_number(tiny, frames):
    seen: dict[tuple, list] = {}
    for frame in frames:
        record = tiny.by_token["panoptic"][frame.lidar["token"]]
        data = np.load(tiny.root / record["filename"])["data"]
        assert data.dtype == np.uint16 and np.array_equal(data // 1000, frame.raw)
        has_instance = data % 1000 > 0
        assert np.array_equal(has_instance, np.isin(frame.raw, [*THING_CATEGORIES, 31]))
        scene = tiny.by_token["sample"][frame.lidar["sample_token"]]["scene_token"]
        points_world = frame.points[:, :3] @ frame.T_world_lidar[:3, :3].T
        points_world += frame.T_world_lidar[:3, 3]
        for value in np.unique(data[has_instance & (frame.raw != 31)]):
            middle = points_world[data == value].mean(0)
            seen.setdefault((scene, value), []).append(middle)
    tracks = [np.array(track) for track in seen.values() if len(track) > 1]
    assert len(tracks) > 20
    # 0.5 s apart: nothing moves more than about 12 m/s + the extent of what is seen of it.
    assert max(np.linalg.norm(np.diff(track, axis=0), axis=1).max() for track in tracks) < 15


def test_boxes_hold_the_points_they_count(tiny, frames):
    by_sample: dict[str, list] = {}
    for record in tiny.tables["sample_annotation"]:
        by_sample.setdefault(record["sample_token"], []).append(record)
    for frame in frames:
        points = frame.points[:, :3] @ frame.T_world_lidar[:3, :3].T + frame.T_world_lidar[:3, 3]
        is_thing = np.isin(frame.raw, list(THING_CATEGORIES))
        boxes = by_sample[frame.lidar["sample_token"]]
        assert sum(box["num_lidar_pts"] for box in boxes) == is_thing.sum()
        covered = np.zeros(len(points), bool)
        from pipeline.geometry import rotation_from_quaternion

        for box in boxes:
            local = (points - box["translation"]) @ rotation_from_quaternion(box["rotation"])
            half = np.array(box["size"])[[1, 0, 2]] / 2 + 0.1  # range noise: five sigma
            covered |= (np.abs(local) <= half).all(1)
        assert covered[is_thing].mean() > 0.995


def _unoccluded(uv, depth):
    """Return which points are the nearest in their 5 x 5 neighbourhood of pixels, within 3 %."""
    nearest = np.full((400, 600), np.inf)
    for du in range(-2, 3):
        for dv in range(-2, 3):
            np.minimum.at(nearest, (uv[:, 1] + dv + 2, uv[:, 0] + du + 2), depth)
    return depth <= 1.03 * nearest[uv[:, 1] + 2, uv[:, 0] + 2]


def _agreement(tiny, frames, one_pose):
    """Return the share of standing, unoccluded points whose pixel shows their own category."""
    # Flat ground and houses stand still for sure; vehicles may move between the two moments.
    still = np.array([9, 12, 18, 24, 25, 26, 27, 28, 30])
    good = total = 0
    for frame in frames:
        for camera in frame.cameras.values():
            uv, depth, rows = tiny.project(frame, camera, one_pose)
            _, category = tiny.oracle(camera)
            clear = _unoccluded(uv, depth) & np.isin(frame.raw[rows], still)
            same = category[uv[:, 1], uv[:, 0]] == frame.raw[rows]
            good, total = good + (same & clear).sum(), total + clear.sum()
    assert total > 10_000
    return good / total


def test_two_ego_poses_put_points_on_their_pixels(tiny, frames):
    two, one = _agreement(tiny, frames, False), _agreement(tiny, frames, True)
    assert two > 0.97
    assert one < two - 0.015


def test_oracle_covers_every_pixel(tiny, frames):
    for frame in frames[:3]:
        for camera in frame.cameras.values():
            ids, category = tiny.oracle(camera)
            assert ids.dtype == np.uint16 and ids.shape == (camera["height"], camera["width"])
            assert np.array_equal(np.unique(ids), np.arange(1, ids.max() + 1))
            assert (category > -2).all() and tiny.image(camera).shape[:2] == ids.shape

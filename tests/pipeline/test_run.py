"""Stage one as a user runs it: whole runs, reruns, shards, and everything that can be wrong."""

import json
import shutil

import numpy as np
import pytest

from pipeline import blocks
from pipeline.__main__ import main
from pipeline.schema import ArraySpec
from pipeline.store import open_store

FOLDER = "synthetic-tiny"


def test_a_run_fills_every_store_with_what_the_recordings_say(city, stores):
    from pipeline.datasets import nuscenes
    from pipeline.index import read_index

    index = read_index(stores / FOLDER / "index.parquet")
    frames = open_store(stores / FOLDER / "frames.zarr")
    frame = index.frame(1)
    cloud = nuscenes.load_points(city, frame.points_path)
    count = int(frames.read("num_points", 1))
    assert count == len(cloud.points)
    np.testing.assert_array_equal(frames.read("points", 1, slice(0, count)), cloud.points)
    assert not frames.read("points", 1, slice(count, None)).any()
    labels = nuscenes.load_labels(city, frame, count)
    np.testing.assert_array_equal(frames.read("labels", 1, slice(0, count)), labels.semantic)
    np.testing.assert_array_equal(frames.read("instances", 1, slice(0, count)), labels.instance)
    assert frames.read("successor", 1) == 2
    assert frames.read("successor", 3) == -1  # last of its scene
    superpixels = open_store(stores / FOLDER / "superpixels-oracle.zarr")
    ids = superpixels.read("ids_native", 1)
    assert (ids > 0).all()  # the city's truth covers every pixel
    assert superpixels.read("num_segments", 1, 0) == len(np.unique(ids[0]))
    segments = open_store(stores / FOLDER / "segments.zarr")
    assert segments.read("ids", 1).any()
    assert not segments.read("ids", 3).any()


def test_rerun_does_nothing_and_leaves_every_byte(city, stores, stage_one):
    before = {p: p.stat().st_mtime_ns for p in stores.rglob("*") if p.is_file()}
    outcome = stage_one("run", "--root", city, "--stores", stores, "--source", "oracle")
    assert outcome.code == 0
    assert outcome.err.count("1 blocks done, 0 to do") == 4
    assert {p: p.stat().st_mtime_ns for p in stores.rglob("*") if p.is_file()} == before


def test_dry_run_says_what_is_to_do(city, tmp_path, stage_one):
    outcome = stage_one("run", "--root", city, "--stores", tmp_path / "s", "--dry-run")
    assert outcome.code == 0
    assert outcome.err.count("not there yet, 8 frames to do") == 4
    assert not list((tmp_path / "s").rglob("*.zarr"))


def test_rebuild_leaves_stores_of_the_same_settings_alone(city, stores, stage_one):
    before = {p: p.stat().st_mtime_ns for p in stores.rglob("*") if p.is_file()}
    arguments = ["run", "--root", city, "--stores", stores, "--source", "oracle", "--rebuild"]
    assert stage_one(*arguments, "--dry-run").code == 0
    assert stage_one(*arguments).code == 0
    assert {p: p.stat().st_mtime_ns for p in stores.rglob("*") if p.is_file()} == before
    assert "must not go with --shard" in stage_one(*arguments, "--shard", "0/2").error()


def test_a_worker_refuses_a_store_that_another_command_rebuilt(city, stores, tmp_path):
    from pipeline.errors import UserError
    from pipeline.making import open_or_create

    mine = shutil.copytree(stores, tmp_path / "mine")
    path = mine / FOLDER / "projections.zarr"
    opened = open_store(path)
    slices, _ = blocks.read_block(opened, 0)
    attributes = {k: v for k, v in opened.attributes.items() if k != "store_id"}
    shutil.rmtree(path)
    spec = [ArraySpec("uv", slices["uv"].shape[1:], (1, *slices["uv"].shape[2:]), "int16", -1)]
    open_or_create(path, opened.header, spec, attributes)
    with pytest.raises(UserError, match="another command rebuilt"):
        blocks.write_block(opened, 0, slices, "rows", (), 1.0)
    assert not opened.marker_path(0).exists()


def test_damaged_markers_and_metadata_get_one_line_and_are_repaired(
    city, stores, stage_one, tmp_path
):
    mine = shutil.copytree(stores, tmp_path / "mine")
    where = ("--root", city, "--stores", mine)
    marker = mine / FOLDER / "frames.blocks" / "0.json"
    for damage in (b"{}", b"[]", b"\xff\xfe", b'{"block": 0'):
        marker.write_bytes(damage)
        assert "block 0: no readable marker" in stage_one("verify", *where).out
    assert stage_one("run", *where, "--stage", "frames").code == 0
    metadata = mine / FOLDER / "frames.zarr" / "points" / "zarr.json"
    whole = metadata.read_text()
    metadata.write_text(whole[:20])
    outcome = stage_one("run", *where, "--stage", "frames")  # mended from its sealed copy
    assert outcome.code == 0, outcome.err
    assert "1 blocks done, 0 to do" in outcome.err
    assert metadata.read_text() == whole
    metadata.write_text(whole[:20])
    (marker.parent / "metadata.json").unlink()  # a store made before there were sealed copies
    assert "'points' must be readable" in stage_one("run", *where, "--stage", "frames").error()
    outcome = stage_one("run", *where, "--stage", "frames", "--rebuild")
    assert outcome.code == 0, outcome.err
    index = mine / FOLDER / "index.parquet"
    index.write_bytes(index.read_bytes()[:-100])
    assert "rebuild it with" in stage_one("run", *where).error()
    assert stage_one("index", *where).code == 0
    outcome = stage_one("run", *where, "--source", "oracle")
    assert outcome.err.count("1 blocks done, 0 to do") == 4


def test_file_system_errors_get_one_line(city, stage_one, tmp_path):
    (tmp_path / "afile").write_text("")
    error = stage_one("run", "--root", city, "--stores", tmp_path / "afile").error()
    assert "afile" in error


def test_verify_finds_damage_and_the_rerun_repairs_it(city, stores, stage_one, tmp_path):
    mine = shutil.copytree(stores, tmp_path / "mine")
    store = open_store(mine / FOLDER / "frames.zarr")
    points, labels = (store.shard_paths(name, 0)[0] for name in ("points", "labels"))
    expected = points.read_bytes(), labels.read_bytes()

    damaged = bytearray(expected[0])
    damaged[len(damaged) // 2] ^= 4
    points.write_bytes(damaged)
    assert stage_one("verify", "--root", city, "--stores", mine).code == 2
    labels.write_bytes(expected[1][:-5])
    outcome = stage_one("run", "--root", city, "--stores", mine, "--stage", "frames")
    assert outcome.code == 0, outcome.err
    assert (points.read_bytes(), labels.read_bytes()) == expected
    outcome = stage_one("verify", "--root", city, "--stores", mine)
    assert outcome.code == 0, outcome.out


def test_shards_cover_everything_once(city, stores):
    from pipeline.plan import choose_blocks

    store = open_store(stores / FOLDER / "frames.zarr")
    object.__setattr__(store.header, "frames_per_block", 2)
    parts = [choose_blocks(store, np.arange(8), (i, 3)) for i in range(3)]
    assert sorted(sum(parts, [])) == [0, 1, 2, 3]


def test_a_broken_image_is_quarantined_and_mended_later(broken_city, city, tmp_path, stage_one):
    image = sorted((broken_city / "samples/CAM_BACK").iterdir())[2]
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    where = ("--root", broken_city, "--stores", tmp_path / "s")
    outcome = stage_one("run", *where, "--stage", "frames")
    assert outcome.code == 3
    assert "Traceback" not in outcome.err
    assert outcome.err.count("quarantined ") >= 1
    assert image.name in outcome.err
    store = open_store(tmp_path / "s" / FOLDER / "frames.zarr")
    again = stage_one("run", *where, "--stage", "frames")
    assert again.code == 3  # still quarantined: a rerun must not look like success
    assert "1 blocks done, 0 to do" in again.err
    [row] = [frame.row for frame in blocks.quarantined_frames(store, 0)]
    marker = json.loads(store.marker_path(0).read_text())
    assert "Traceback" in marker["quarantined"][0]["traceback"]
    assert store.read("num_points", (row + 1) % 8) > 0

    image.write_bytes(whole)
    outcome = stage_one("run", *where, "--stage", "frames", "--retry-quarantined")
    assert outcome.code == 0, outcome.err
    mended = open_store(store.path)
    main(["run", "--root", str(city), "--stores", str(tmp_path / "t"), "--stage", "frames"],
         standalone_mode=False)  # fmt: skip
    clean = open_store(tmp_path / "t" / FOLDER / "frames.zarr")
    for name in sorted(clean.group.array_keys()):
        np.testing.assert_array_equal(np.asarray(mended.array(name)), np.asarray(clean.array(name)))


def edit_table(root, name, change):
    path = root / "v1.0-mini" / f"{name}.json"
    records = json.loads(path.read_text())
    change(records)
    path.write_text(json.dumps(records))


def dangle(root):
    edit_table(root, "sample_data", lambda records: records[0].update(ego_pose_token="nowhere"))


def cut_points(root):
    path = sorted((root / "samples/LIDAR_TOP").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-3])


def drop_label(root):
    path = sorted((root / "lidarseg").rglob("*.bin"))[0]
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "code", "expected"),
    [
        (dangle, 2, "ego_pose"),
        (cut_points, 3, "multiple of 20"),
        (drop_label, 3, "label"),
    ],
)
def test_damaged_recordings_get_one_clear_line(broken_city, stage_one, damage, code, expected):
    damage(broken_city)
    outcome = stage_one("run", "--root", broken_city, "--stores", "s", "--stage", "frames")
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    marks = ("error: ", "quarantined ")
    [line] = [line for line in outcome.err.splitlines() if line.startswith(marks)]
    assert expected in line
    assert ";" in line  # what to do


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--dataset", "nuscense"], "did you mean 'nuscenes'"),
        (["run", "--dataset", "nuscenes"], "NUSCENES_ROOT"),
        (["run", "--dataset", "nuscenes", "--root", "nowhere"], "nowhere"),
        (["run", "--root", "."], "city.json"),
        (["run", "--version", "huge"], "tiny, demo, full"),
        (["run", "--root", "CITY", "--source", "slik"], "did you mean 'slic'"),
        (["run", "--root", "CITY", "--stage", "frame"], "did you mean 'frames'"),
        (["run", "--root", "CITY", "--scenes", "scene-x"], "scene-x"),
        (["run", "--root", "CITY", "--shard", "3/3"], "0 <= i < n"),
        (["run", "--root", "CITY", "--stage", "superpixels", "--source", "images"], "folder must"),
        (["run", "--root", "CITY", "--source", "slic@../x"], "label must be"),
        (["run", "--root", "CITY", "--stage", "segments", "--set", "voxel_m=nan"], "above 0"),
        (["run", "--root", "CITY", "--set", "n_segments=9"], "one --stage"),
        (["run", "--root", "CITY", "--stage", "superpixels", "--set", "segments=9"], "n_segments"),
        (["run", "--root", "CITY", "--stage", "superpixels", "--set", "sigma=x"], "must be float"),
        (["verify", "--root", "CITY"], "make superpixels"),
        (["pictures", "--root", "CITY"], "index must be there"),
        (["synthesize", "--size", "large"], "tiny"),
    ],
)
def test_bad_arguments_get_one_clear_line(city, stage_one, monkeypatch, arguments, expected):
    monkeypatch.delenv("NUSCENES_ROOT", raising=False)
    outcome = stage_one(*[city if a == "CITY" else a for a in arguments])
    assert outcome.code == 2
    assert expected in outcome.error()


def test_another_root_than_the_index_is_refused(stores, stage_one, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "city.json").write_text('{"size": "tiny", "seed": 0}')
    (tmp_path / "other" / "v1.0-mini").mkdir()
    outcome = stage_one("run", "--root", tmp_path / "other", "--stores", stores)
    assert outcome.code == 2
    assert "correct --root" in outcome.error()


def test_doctor_runs_an_engine(command):
    outcome = command("pipeline", "doctor")
    assert outcome.code == 0, outcome.err
    assert "one convolution forward and backward on cpu, ok" in outcome.out
    assert "superpixels  slic: usable" in outcome.out
    assert "gpu " in outcome.out


def test_a_store_of_another_config_is_refused(city, stores, stage_one, tmp_path):
    arguments = ["run", "--root", city, "--stores", tmp_path / "s", "--stage", "superpixels"]
    assert stage_one(*arguments, "--set", "n_segments=20").code == 0
    error = stage_one(*arguments).error()
    assert "config.n_segments: 20 -> 150" in error
    assert "--rebuild" in error
    beside = [a if a != "slic" else "slic@few" for a in [*arguments, "--source", "slic"]]
    assert stage_one(*beside, "--dry-run").code == 0  # another label, another store


def test_help_of_every_command_is_complete(command):
    names = ["doctor", "synthesize", "index", "run", "verify", "pictures", "inspect"]
    names += ["import-masks", "export-masks"]
    text = command("pipeline", "--help").out
    for name in names:
        assert name in text
        assert len(main.commands[name].help) > 20
        for option in main.commands[name].params:
            is_documented = option.param_type_name == "argument" or option.help
            assert is_documented, f"{name} {option.name}"

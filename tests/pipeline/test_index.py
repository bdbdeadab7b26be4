import dataclasses
import hashlib
import os
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import index_content
from pipeline.errors import UserError
from pipeline.index import (
    Index,
    build_index,
    read_index,
    update_index,
    validate,
    write_index,
)
from pipeline.index_table import SCHEMA, to_table
from pipeline.manifest import load_manifest
from pipeline.schema import Capacity
from pipeline.splits import split_names
from pipeline.types import Camera, Frame, Sweep
from tests.pipeline.datasets.tiny_nuscenes import make_tables, write_tables

SPLITS = split_names(load_manifest("nuscenes"))
SLOTS = load_manifest("nuscenes").cameras
PACKED = {pa.int32(): "i", pa.int64(): "q", pa.float64(): "d"}


def make_frame(scene, position, successor=None, **changes) -> Frame:
    seed = np.random.default_rng([len(scene), position])
    camera = Camera(
        name=SLOTS[1],
        token=f"{scene}{position}",
        path="a.jpg",
        height=900,
        width=1600,
        K=seed.normal(size=(3, 3)),
        T_cam_lidar=seed.normal(size=(4, 4)),
        t_ns=position,
        distortion=(0.1, -0.2) if position else (),
    )
    frame = Frame(
        frame_id=f"{scene}/{position}",
        scene=scene,
        position=position,
        splits=("train", "half", "full") if position % 2 else ("val",),
        t_ns=1_533_000_000_000_000_000 + position,
        points_path=f"{scene}/{position}.bin",
        max_points=100 + position,
        lidar_token=f"l{position}",
        T_world_lidar=seed.normal(size=(4, 4)) if position != 2 else None,
        successor_id=f"{scene}/{successor}" if successor is not None else None,
        sweeps=(Sweep("s.bin", seed.normal(size=(4, 4))),) * position,
        label_path="l.bin" if position else None,
        cameras=(None, camera, *[None] * 4) if position else (None,) * 6,
    )
    return dataclasses.replace(frame, **changes)


def make_index(frames) -> Index:
    return Index("nuscenes", "v1.0-mini", SLOTS, SPLITS, "hash", to_table(frames, SPLITS))


def assert_same(a: Frame, b: Frame) -> None:
    def plain(thing):
        if isinstance(thing, np.ndarray):
            return thing.shape, thing.dtype.str, thing.tolist()
        if isinstance(thing, tuple):
            return tuple(map(plain, thing))
        if dataclasses.is_dataclass(thing):
            return type(thing), {
                f.name: plain(getattr(thing, f.name)) for f in dataclasses.fields(thing)
            }
        return thing

    assert plain(a) == plain(b)


FRAMES = [make_frame("b", 0, 1), make_frame("b", 1), make_frame("a", 2), make_frame("a", 3)]


def test_frames_survive_the_file_bit_for_bit(tmp_path):
    path = tmp_path / "stores/index.parquet"
    write_index(path, make_index(FRAMES))
    index = read_index(path)
    assert len(index) == 4 and (index.dataset, index.version) == ("nuscenes", "v1.0-mini")
    assert (index.cameras, index.splits, index.manifest_hash) == (SLOTS, SPLITS, "hash")
    for row, frame in enumerate(FRAMES):
        assert_same(index.frame(row), frame)
    first = path.read_bytes()
    write_index(path, make_index(FRAMES))
    assert path.read_bytes() == first
    with pytest.raises(IndexError, match="row must be in 0..3, got 4"):
        index.frame(4)


def test_columns(tmp_path):
    index = make_index(FRAMES)
    assert index.successor.tolist() == [1, -1, -1, -1] and index.successor.dtype == np.int64
    assert index.scenes() == ["b", "a"]
    assert [index.scene_number(row) for row in range(4)] == [0, 0, 1, 1]
    assert index.split_mask("train").tolist() == [False, True, False, True]
    assert index.split_mask("slidr_train").tolist() == [False] * 4
    with pytest.raises(UserError, match=r"unknown name 'trian'; did you mean 'train'\?"):
        index.split_mask("trian")
    assert not index.has_instances
    assert make_index([make_frame("a", 1, instance_path="i")]).has_instances


def test_capacity_is_the_largest_of_everything():
    assert make_index(FRAMES).capacity() == Capacity(4, 6, 103, 900, 1600, 450, 800)
    small = [make_frame("a", 0, cameras=()), make_frame("a", 1, cameras=())]
    index = dataclasses.replace(make_index(small), cameras=())
    assert index.capacity() == Capacity(2, 0, 101, 0, 0, 0, 0)
    odd = dataclasses.replace(FRAMES[1].cameras[1], height=376, width=1241)
    index = make_index([make_frame("a", 1, cameras=(odd,))])
    assert index.store_scale == 1.0 and index.capacity().store_width == 1241


def changed(row, **changes):
    frames = list(FRAMES)
    frames[row] = dataclasses.replace(frames[row], **changes)
    return make_index(frames)


def test_rows_hash_covers_what_stages_read():
    index = make_index(FRAMES)
    assert index.rows_hash(0, 1) == make_index(FRAMES).rows_hash(0, 1) != index.rows_hash(1, 2)
    moved = np.eye(4)
    for other in (
        changed(0, points_path="x"),
        changed(0, successor_id=None),
        changed(0, sweeps=(Sweep("s", moved),)),
        changed(0, cameras=FRAMES[1].cameras),
        changed(0, label_path="x"),
        changed(1, points_path="x"),  # the successor's scan
        changed(1, T_world_lidar=moved),  # and its pose
    ):
        assert other.rows_hash(0, 1) != index.rows_hash(0, 1)
        assert other.rows_hash(2, 4) == index.rows_hash(2, 4)
    assert changed(1, label_path="x").rows_hash(0, 1) == index.rows_hash(0, 1)
    assert changed(0, splits=("train",)).rows_hash(0, 4) == index.rows_hash(0, 4)


def plain_bytes(kind, values):
    """The bytes of some values of a column, one after the other."""
    given = [value for value in values if value is not None]
    text = bytes(value is not None for value in values)
    if pa.types.is_string(kind):
        words = [(value or "").encode() for value in values]
        return text + struct.pack(f"<{len(words)}i", *map(len, words)) + b"".join(words)
    if pa.types.is_fixed_size_list(kind):
        zeros = [0.0] * kind.list_size
        return text + b"".join(struct.pack(f"<{len(zeros)}d", *(v or zeros)) for v in values)
    if pa.types.is_list(kind):
        lengths = [len(value or ()) for value in values]
        held = plain_bytes(kind.value_type, [one for value in given for one in value])
        return text + struct.pack(f"<{len(lengths)}i", *lengths) + held
    if pa.types.is_struct(kind):
        fields = ([v and v[field.name] for v in values] for field in kind)
        return text + b"".join(map(plain_bytes, [field.type for field in kind], fields))
    return text + struct.pack(f"<{len(values)}{PACKED[kind]}", *(v or 0 for v in values))


def plain_content(rows, row):
    """The slow plain twin: SHA-256 of the bytes of a row's objects, value by value."""
    own = [(n, rows[row][n]) for n in SCHEMA.names if n not in ("splits", "successor", "content")]
    after = rows[rows[row]["successor"]] if rows[row]["successor"] >= 0 else {}
    own += [(n, after.get(n)) for n in ("frame_id", "points_path", "T_world_lidar")]
    text = b"".join(plain_bytes(SCHEMA.field(name).type, [value]) for name, value in own)
    return hashlib.sha256(text).digest()


def test_content_is_the_hash_of_the_plain_twin(monkeypatch):
    camera = dataclasses.replace(FRAMES[1].cameras[1], path='\u00e9"\\\n.jpg', token="\u4e2d")
    sweep = Sweep('"', np.array([[np.nan, np.inf, -0.0, 5e-324], [1e16, 1e22, 0.1, 1 / 3]] * 2))
    odd = [
        make_frame(
            "c", 0, 1, cameras=(camera, None, camera), T_world_lidar=np.full((4, 4), np.nan)
        ),
        make_frame("c", 1, 2, sweeps=(sweep, sweep), cameras=(None, camera, None)),
        make_frame("c", 2, points_path='a"b', instance_path="i\\", cameras=(None,) * 3),
    ]
    for frames in (FRAMES, odd, FRAMES[:1] + FRAMES[1:2], odd[2:]):
        frames = [*frames]
        if not any(camera for frame in frames for camera in frame.cameras):
            frames = [dataclasses.replace(frame, cameras=()) for frame in frames]
        rows = to_table(frames, SPLITS).to_pylist()
        wanted = [plain_content(rows, row) for row in range(len(rows))]
        for count in (1, 2, 100):
            monkeypatch.setattr(index_content, "ROWS", count)
            assert to_table(frames, SPLITS)["content"].to_pylist() == wanted


def test_content_is_of_values_not_of_what_lies_below_nulls_or_of_chunks():
    table = to_table(FRAMES, SPLITS)
    wanted, odd = table["content"].to_pylist(), table.drop_columns(["content"])
    mask = odd["T_world_lidar"].is_null().combine_chunks()
    assert mask.true_count and odd["label_path"].null_count
    flat = pc.fill_null(odd["T_world_lidar"].combine_chunks().values, 7.0)
    numbers = np.where(np.repeat(mask.to_numpy(zero_copy_only=False), 16), 7.0, flat.to_numpy())
    matrices = pa.FixedSizeListArray.from_arrays(pa.array(numbers), 16, mask=mask)
    given = odd["label_path"].combine_chunks()
    _, *parts = pc.fill_null(given, "garbage").buffers()
    texts = pa.StringArray.from_buffers(len(given), *parts, given.buffers()[0])
    for name, column in (("T_world_lidar", matrices), ("label_path", texts)):
        at = SCHEMA.get_field_index(name)
        odd = odd.set_column(at, SCHEMA.field(at), column)
    assert odd.equals(table.drop_columns(["content"]))
    assert index_content.contents(odd).to_pylist() == wanted
    pieces = pa.concat_tables([odd.slice(row, 1) for row in range(len(odd))])
    assert index_content.contents(pieces).to_pylist() == wanted


def test_rows_hash_survives_the_file(tmp_path):
    index = make_index(FRAMES)
    write_index(tmp_path / "i.parquet", index)
    assert read_index(tmp_path / "i.parquet").rows_hash(1, 4) == index.rows_hash(1, 4)


def test_a_grown_data_set_keeps_its_rows(tmp_path):
    old = make_index([make_frame("b", 0), make_frame("a", 3)])
    new = make_index(
        [make_frame("c", 1, 2), make_frame("c", 2), make_frame("b", 0, 1), make_frame("b", 1)]
        + [make_frame("a", 3)]
    )
    grown = update_index(old, new)
    assert grown.frame_ids == ["b/0", "a/3", "c/1", "c/2", "b/1"]
    assert grown.successor.tolist() == [4, -1, 3, -1, -1]
    assert grown.scenes() == ["b", "a", "c"]
    for row in range(5):
        assert_same(grown.frame(row), new.frame(new.frame_ids.index(grown.frame_ids[row])))
    assert grown.rows_hash(1, 2) == old.rows_hash(1, 2)
    assert grown.rows_hash(0, 1) != old.rows_hash(0, 1)  # it has a successor now
    write_index(tmp_path / "i.parquet", grown)
    again = update_index(read_index(tmp_path / "i.parquet"), new)
    assert again.table.equals(grown.table)


def test_a_frame_that_vanished_is_refused():
    new = make_index(FRAMES[1:])
    with pytest.raises(
        UserError, match=r"frame 'b/0' must still be in 'nuscenes'.*fresh stores folder"
    ):
        update_index(make_index(FRAMES), new)
    other = dataclasses.replace(make_index(FRAMES), cameras=("x",))
    with pytest.raises(UserError, match="cameras must stay"):
        update_index(make_index(FRAMES), other)


def test_broken_index_files_say_how_to_rebuild(tmp_path):
    path = tmp_path / "index.parquet"
    with pytest.raises(UserError, match="not found; build it with 'python -m pipeline index'"):
        read_index(path)
    write_index(path, make_index(FRAMES))
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"PAR1 not at all PAR1"):
        path.write_bytes(data)
        with pytest.raises(UserError, match="rebuild it with 'python -m pipeline index'"):
            read_index(path)
    pq.write_table(make_index(FRAMES).table, path)  # Parquet, but not ours
    with pytest.raises(UserError, match="index must be Parquet as we write it, got KeyError"):
        read_index(path)


def test_build_reads_a_data_set_end_to_end(tmp_path):
    write_tables(tmp_path, make_tables())
    index = build_index("nuscenes", tmp_path)
    assert index.version == "v1.0-mini" and len(index) == 4
    assert index.cameras == SLOTS  # five of them have no image
    assert index.successor.tolist() == [1, 2, -1, -1]
    assert index.scenes() == ["scene-0061", "scene-0003"]
    tables = make_tables()
    tables["scene"] = []
    write_tables(tmp_path, tables)
    with pytest.raises(UserError, match="must hold at least one keyframe of 'nuscenes', got none"):
        build_index("nuscenes", tmp_path)


def test_validate_names_what_is_wrong(tmp_path):
    write_tables(tmp_path, make_tables())
    index = build_index("nuscenes", tmp_path)
    (problem,) = validate(index, tmp_path)
    assert "4 image files are missing: samples/scene-0061-s0-front.jpg, " in problem
    for k in range(3):
        (tmp_path / f"samples/scene-0061-s{k}-front.jpg").write_bytes(b"")
    (tmp_path / "samples/scene-0003-s0-front.jpg").write_bytes(b"")
    assert validate(index, tmp_path) == []
    frames = [index.frame(row) for row in range(len(index))]
    camera = dataclasses.replace(frames[0].cameras[0], K=np.diag([-1.0, 1, 1]))
    frames[0] = dataclasses.replace(frames[0], cameras=(camera, *[None] * 5))
    frames[1] = dataclasses.replace(frames[1], t_ns=frames[2].t_ns)
    lines = validate(make_index(frames), tmp_path)
    assert len(lines) == 2
    assert lines[0].startswith("scene-0061/0/CAM_FRONT: K must have its center in the image")
    assert lines[1] == "scene-0061/2: t_ns must be later than that of scene-0061/1"


@pytest.mark.slow
def test_an_index_of_nuscenes_size_loads_small(tmp_path):
    camera = dataclasses.replace(
        FRAMES[1].cameras[1],
        token="0" * 32,
        path="samples/CAM_FRONT/n015-2018-07-24-11-22-45+0800__CAM_FRONT__1532402927612460.jpg",
    )
    sweep = Sweep(camera.path, np.eye(4))
    frames = [
        make_frame(
            f"scene-{k // 40:04d}", k % 40, None, cameras=(camera,) * 6, sweeps=(sweep,) * 10
        )
        for k in range(34_149)
    ]
    write_index(tmp_path / "i.parquet", make_index(frames))
    script = """
        import sys, time, psutil
        from pathlib import Path
        from pipeline.index import read_index
        start, before = time.perf_counter(), psutil.Process().memory_info().rss
        index = read_index(Path(sys.argv[1]))
        index.successor, index.split_mask("train"), index.capacity(), index.frame(30_000)
        elapsed = time.perf_counter() - start
        assert "numba" not in sys.modules, "70 MB that only building needs"
        print(elapsed, (psutil.Process().memory_info().rss - before) / 2**20)
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "i.parquet")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    ).stdout
    seconds, mebibytes = map(float, out.split())
    print(f"loaded in {seconds:.2f} s, {mebibytes:.0f} MiB")
    assert mebibytes < 300

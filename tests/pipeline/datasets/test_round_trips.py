"""Every data set: the synthetic city written in its own format, read back equal."""

import dataclasses

import numpy as np
import pytest

from pipeline.datasets.table import load_reader
from pipeline.index import build_index, read_index, validate, write_index
from pipeline.manifest import load_manifest
from pipeline.splits import SUBSETS, read_masks
from tests.pipeline.datasets.writers import (
    folder,
    kitti,
    nuscenes,
    nuscenes_c,
    rellis3d,
    waymo,
)

WRITERS = {
    "semantickitti": kitti.write_semantickitti,
    "scribblekitti": kitti.write_scribblekitti,
    "semanticposs": kitti.write_semanticposs,
    "semanticstf": kitti.write_semanticstf,
    "synlidar": kitti.write_synlidar,
    "daps3d": kitti.write_daps3d,
    "synth4d": kitti.write_synth4d,
    "rellis3d": rellis3d.write_rellis3d,
    "waymo": waymo.write_waymo,
    "folder": folder.write_folder,
}


def write(name, root, drive):
    """Write the drive in a data set's format; return what must come back."""
    root.mkdir(exist_ok=True)
    if name == "folder":
        root.rmdir()
    return WRITERS[name](root, drive, load_manifest(name))


def read(name, root, tmp_path):
    """Return the index of a data set, by way of its file."""
    path = tmp_path / "stores/index.parquet"
    write_index(path, build_index(name, root))
    return read_index(path)


def assert_cameras(root, reader, frame, item):
    if not any(item.cameras):
        assert not any(frame.cameras)
        return
    assert len(frame.cameras) == len(item.cameras)
    for found, wanted, image in zip(frame.cameras, item.cameras, item.images, strict=True):
        assert (found is None) == (wanted is None)
        if found is None:
            continue
        assert (found.height, found.width) == (wanted.height, wanted.width)
        np.testing.assert_allclose(found.K, wanted.K, atol=1e-9)
        np.testing.assert_allclose(found.T_cam_lidar, wanted.T_cam_lidar, atol=1e-7)
        np.testing.assert_allclose(found.distortion, wanted.distortion)
        pixels = reader.load_image(root, found).astype(int)
        lossy = found.path.endswith(".png") is False
        assert np.abs(pixels - image).mean() < (4 if lossy else 1e-9)


def assert_frame(root, reader, frame, item, tolerance_m):
    cloud = reader.load_points(root, frame.points_path)
    np.testing.assert_allclose(cloud.points[:, :3], item.points[:, :3], atol=tolerance_m)
    np.testing.assert_array_equal(cloud.points[:, 3], item.points[:, 3])
    ring = np.full(len(item.points), 255) if item.ring is None else item.ring
    np.testing.assert_array_equal(cloud.ring, ring)
    assert len(item.points) <= frame.max_points
    labels = reader.load_labels(root, frame, len(cloud.points))
    assert (labels is None) == (item.semantic is None)
    if labels is not None:
        np.testing.assert_array_equal(labels.semantic, item.semantic)
        if labels.instance is not None and item.instance is not None:
            np.testing.assert_array_equal(labels.instance, item.instance)
    assert (frame.T_world_lidar is None) == (item.T_world_lidar is None)
    if item.T_world_lidar is not None:
        np.testing.assert_allclose(frame.T_world_lidar, item.T_world_lidar, atol=1e-6)
    if item.t_ns is not None:
        assert abs(frame.t_ns - item.t_ns) < 1000
    assert_cameras(root, reader, frame, item)


@pytest.mark.parametrize("name", WRITERS)
def test_a_drive_comes_back(name, drive, tmp_path):
    root = tmp_path / name
    written = {item.frame_id: item for item in write(name, root, drive)}
    index, manifest, reader = read(name, root, tmp_path), load_manifest(name), load_reader(name)
    assert index.frame_ids == list(written) or sorted(index.frame_ids) == sorted(written)
    tolerance_m = 2e-5 if name == "waymo" else 0.0  # ranges are float32, of up to 85 m
    for frame in map(index.frame, range(len(index))):
        assert_frame(root, reader, frame, written[frame.frame_id], tolerance_m)
    assert validate(index, root) == []
    # successors are pair_gap scans on, with what lies between, where there are poses
    gap = manifest.pair_gap if written[index.frame_ids[0]].T_world_lidar is not None else 0
    after = [int(a) - row for row, a in enumerate(index.successor) if a >= 0]
    assert after == [gap] * (2 * (7 - gap)) if gap else not after
    for row in np.flatnonzero(index.successor >= 0):
        frame, last = index.frame(int(row)), index.frame(int(index.successor[row]))
        assert len(frame.sweeps) == gap - 1
        assert frame.successor_id == last.frame_id and frame.scene == last.scene
        for k, sweep in enumerate(frame.sweeps, 1):
            other = index.frame(int(row) + k)
            assert sweep.path == other.points_path
            np.testing.assert_allclose(
                frame.T_world_lidar @ sweep.T_lidar_sweep, other.T_world_lidar, atol=1e-6
            )


@pytest.mark.parametrize("name", WRITERS)
def test_splits_come_back(name, drive, tmp_path):
    root = tmp_path / name
    short = [[dataclasses.replace(m, points=m.points[:9], ring=m.ring[:9]) for m in scene]
             for scene in drive]  # fmt: skip
    written = {item.frame_id: item for item in write(name, root, short)}
    index, manifest = build_index(name, root), load_manifest(name)
    frames = [index.frame(row) for row in range(len(index))]
    masks = read_masks(manifest) if manifest.frame_lists else {}
    own = {}
    for frame in frames:
        own[frame.frame_id] = written[frame.frame_id].splits
        if masks:
            trains = masks[frame.scene] >> int(frame.frame_id.rpartition("/")[2]) & 1
            own[frame.frame_id] = ("train",) if trains else ("val",)
    paths = sorted(
        (f.points_path if name != "rellis3d" else f.frame_id, f.frame_id) for f in frames
        if "train" in own[f.frame_id] and f.label_path
    )  # fmt: skip
    assert paths
    for split, step in SUBSETS.items():
        if split not in manifest.scene_lists:  # every k-th of the sorted list from the first
            kept = {frame_id for _, frame_id in paths[::step]}
            own = {i: (*names, split) if i in kept else names for i, names in own.items()}
    assert {frame.frame_id: set(frame.splits) for frame in frames} == {
        frame_id: set(names) for frame_id, names in own.items()
    }


def test_nuscenes_comes_back(drive, tmp_path):
    """Keyframes are frames; what lies between them comes as sweeps."""
    root = tmp_path / "nuscenes"
    written = nuscenes.write_nuscenes(root, drive, load_manifest("nuscenes"))
    index, reader = read("nuscenes", root, tmp_path), load_reader("nuscenes")
    assert index.version == "v1.0-mini" and index.frame_ids == [w.frame_id for w in written]
    for row, item in enumerate(written):
        frame = index.frame(row)
        assert_frame(root, reader, frame, item, 0.0)
        assert set(frame.splits) == set(item.splits)
        assert reader.load_labels(root, frame, len(item.points)).instance is not None
    assert validate(index, root) == []
    assert index.successor.tolist() == [1, -1, 3, -1]
    for row, moments in zip((0, 2), drive, strict=True):
        frame, last = index.frame(row), next(k for k in range(1, 7) if moments[k].images)
        assert len(frame.sweeps) == last - 1 > 0
        for sweep, moment in zip(frame.sweeps, moments[1:], strict=False):
            cloud = reader.load_points(root, sweep.path)
            np.testing.assert_array_equal(cloud.points, moment.points)
            np.testing.assert_allclose(
                frame.T_world_lidar @ sweep.T_lidar_sweep, moment.T_world_lidar, atol=1e-6
            )


def test_nuscenes_c_comes_back(city, tmp_path):
    root = tmp_path / "nuscenes_c"
    written = nuscenes_c.write_nuscenes_c(root, city, load_manifest("nuscenes_c"))
    path = tmp_path / "stores/index.parquet"
    write_index(path, build_index("nuscenes_c", root, "v1.0-mini"))
    index, reader = read_index(path), load_reader("nuscenes_c")
    assert index.frame_ids == [item.frame_id for item in written]
    assert index.scenes() == ["fog-light/scene-0003", "snow-heavy/scene-0003"]
    for row, item in enumerate(written):
        frame = index.frame(row)
        assert_frame(root, reader, frame, item, 0.0)
        assert set(frame.splits) == set(item.splits)
    assert validate(index, root) == []
    assert index.cameras == () and (index.successor == -1).all()
    label_map = load_manifest("nuscenes_c").label_map()
    assert label_map[[41, 42, 43]].tolist() == [255] * 3
    assert (written[0].semantic == 41).any()


def test_nuscenes_c_takes_the_tables_from_nuscenes_root(city, tmp_path, monkeypatch):
    root, clean = tmp_path / "c", tmp_path / "clean"
    nuscenes_c.write_nuscenes_c(root, city, load_manifest("nuscenes_c"))
    clean.mkdir()
    (root / "v1.0-mini").rename(clean / "v1.0-mini")
    monkeypatch.setenv("NUSCENES_ROOT", str(clean))
    assert len(build_index("nuscenes_c", root, "v1.0-mini")) == 8

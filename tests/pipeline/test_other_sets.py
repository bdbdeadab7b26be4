"""The stages on data sets with what nuScenes has not: odd cameras, no cameras, Parquet."""

import dataclasses

import cv2
import numpy as np
import pytest
import yaml

from pipeline import graph
from pipeline.__main__ import main
from pipeline.datasets.table import load_reader
from pipeline.errors import UserError
from pipeline.index import build_index, read_index
from pipeline.manifest import load_manifest
from pipeline.projection import keep_seen
from pipeline.stage import _attributes as stage_attributes
from pipeline.store import open_store
from tests.pipeline.datasets.writers import kitti
from tests.pipeline.datasets.writers.folder import write_folder
from tests.pipeline.datasets.writers.rellis3d import write_rellis3d
from tests.pipeline.datasets.writers.waymo import write_waymo


def run(dataset, root, stores, *more):
    arguments = ["run", "--dataset", dataset, "--root", root, "--stores", stores, *more]
    main([str(a) for a in arguments], standalone_mode=False)


def test_cameras_of_two_sizes_with_distortion(drive, tmp_path):
    """A folder whose second camera is larger and bends: every stage, read back from the stores."""
    root, stores = tmp_path / "car", tmp_path / "stores"
    write_folder(root, [moments[:6] for moments in drive], load_manifest("folder"))
    calibration = yaml.safe_load((root / "calibration.yaml").read_text())
    wide = calibration["cameras"]["CAM_FRONT_RIGHT"]
    wide |= {"width": 300, "height": 130, "distortion": [-0.2, 0.05, 0.003, -0.002]}
    (root / "calibration.yaml").write_text(yaml.safe_dump(calibration, sort_keys=False))
    for path in root.glob("*/images/CAM_FRONT_RIGHT/*.png"):
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (300, 130)))
    run("folder", root, stores)
    index = read_index(stores / "folder/index.parquet")
    frames, uv = (
        open_store(stores / "folder/frames.zarr"),
        open_store(stores / "folder/projections.zarr"),
    )
    ids = open_store(stores / "folder/superpixels-slic.zarr")
    assert frames.read("image_size", 0).tolist() == [[112, 208], [130, 300]]
    assert frames.read("image_size", 1).tolist() == [[0, 0], [0, 0]]  # a sweep has no images
    assert ids.read("ids_native", 0).shape == (2, 130, 300)
    assert (
        not ids.read("ids_native", 0, 0)[112:].any()
        and not ids.read("ids_native", 0, 0)[:, 208:].any()
    )
    assert ids.read("ids_native", 0, 1).all()
    points = frames.read("points", 0, slice(0, int(frames.read("num_points", 0))))
    for slot, camera in enumerate(index.frame(0).cameras):
        T = camera.T_cam_lidar
        xyz = points[:, :3].astype(np.float64) @ T[:3, :3].T + T[:3, 3]
        ahead = np.flatnonzero(xyz[:, 2] > 1)
        expected, _ = cv2.projectPoints(
            xyz[ahead], np.zeros(3), np.zeros(3), camera.K, np.array(camera.distortion)
        )
        found = uv.read("uv", 0, slot, slice(0, len(points)))
        seen = found[ahead, 0] >= 0
        assert seen.sum() > 50
        np.testing.assert_array_equal(found[ahead][seen], np.rint(expected[seen, 0]))
    segments = open_store(stores / "folder/segments.zarr")
    assert segments.read("ids", 0).any() and not segments.read("ids", 1).any()  # gap 5 of 6 scans


def test_a_set_of_scans_alone_says_what_it_cannot_do(drive, tmp_path, capsys):
    root, stores = tmp_path / "stf", tmp_path / "stores"
    short = [[dataclasses.replace(m, points=m.points[:50]) for m in scene[:2]] for scene in drive]
    kitti.write_semanticstf(root, short, load_manifest("semanticstf"))
    run("semanticstf", root, stores)
    lines = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    no_cameras = "needs cameras, got none; use this data set for probing and fine-tuning"
    no_pairs = "needs pairs of frames with poses, got none; use this data set without segments"
    assert lines == [
        f"semanticstf: stage superpixels left out: it {no_cameras}",
        f"semanticstf: stage projections left out: it {no_cameras}",
        f"semanticstf: stage segments left out: it {no_pairs}",
    ]
    frames = open_store(stores / "semanticstf/frames.zarr")
    assert frames.read("has_labels", 0) and int(frames.read("num_points", 3)) == 50
    assert np.isnan(frames.read("T_world_lidar", 0)).all()
    assert frames.attributes["intensity_offset"] == 1.0
    for stage in ("superpixels", "projections", "segments"):
        with pytest.raises(UserError, match=f"'semanticstf': stage {stage} needs"):
            run("semanticstf", root, stores, "--stage", stage)


def test_a_store_tells_the_numbers_of_its_version(drive, tmp_path):
    manifest = load_manifest("rellis3d")
    write_rellis3d(tmp_path, [scene[:1] for scene in drive], manifest)
    os1 = build_index("rellis3d", tmp_path)
    for version, numbers in (("os1", (64, 1.0)), ("vel", (32, 255.0))):
        index = dataclasses.replace(os1, version=version)
        told = stage_attributes("frames", manifest, index)
        assert (told["num_rings"], told["intensity_max"]) == numbers


def blank(arrays):
    return {a.name: np.full(a.frame_shape, a.fill, a.dtype) for a in arrays}


def test_waymo_keeps_its_recorded_pixels(drive, tmp_path):
    manifest = load_manifest("waymo")
    write_waymo(tmp_path, drive, manifest)
    index = build_index("waymo", tmp_path)
    context = graph.Context(tmp_path, index, manifest, "slic", None, "cpu")
    reader, frame = load_reader("waymo"), index.frame(0)
    out = blank(graph.stage_arrays("projections", index.capacity(), True, 0))
    graph.projections(context, 0, out)
    cloud = reader.load_points(tmp_path, frame.points_path)
    recorded = reader.load_pixels(tmp_path, frame)
    count = len(cloud.points)
    for slot in (0, 1):
        wanted = keep_seen(recorded[slot], cloud.points, frame.cameras[slot])
        np.testing.assert_array_equal(out["uv"][slot, :count], wanted)
        assert (wanted[:, 0] >= 0).sum() > 50
    assert (out["uv"][:, count:] == -1).all() and (out["uv"][2:] == -1).all()
    out = blank(graph.stage_arrays("frames", index.capacity(), True, 0))
    graph.frames(context, 0, out)
    assert out["num_points"] == count and out["has_labels"] and out["jpeg_bytes"][:2].all()
    assert out["ring"][:count].max() == 31 and out["instances"].any()
    out = blank(graph.stage_arrays("segments", index.capacity(), True, 0))
    from pipeline import segments

    context = dataclasses.replace(context, config=segments.Config())
    graph.segments_of_pair(context, 0, out)  # the sweeps between come from the same file
    assert out["ids"].any()

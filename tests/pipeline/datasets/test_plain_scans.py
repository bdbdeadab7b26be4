"""SynLiDAR, DAPS-3D, Synth4D, SemanticSTF, and the trees they share with KITTI."""

import shutil

import numpy as np
import pytest

from pipeline.datasets import scans, semantickitti, semanticstf
from pipeline.errors import UserError
from pipeline.manifest import load_manifest, resolve_version
from tests.pipeline.datasets.writers import kitti


def make(name, root, drive):
    writer = getattr(kitti, f"write_{name}")
    short = [moments[:2] for moments in drive] if name != "synlidar" else drive
    return writer(root, short, load_manifest(name))


def test_trees_may_be_nested_the_other_way_round(drive, tmp_path):
    make("scribblekitti", tmp_path, drive)
    manifest = load_manifest("scribblekitti")
    wanted = [(f.points_path, f.label_path) for f in semantickitti.index(tmp_path, manifest, None)]
    base = tmp_path / "sequences"
    for kind in ("scribbles", "labels"):
        for scene in ("00", "08"):
            if (base / scene / kind).is_dir():
                (base / kind).mkdir(exist_ok=True)
                shutil.move(base / scene / kind, base / kind / scene)
    frames = semantickitti.index(tmp_path, manifest, None)
    assert [f.points_path for f in frames] == [path for path, _ in wanted]
    assert frames[0].label_path == "sequences/scribbles/00/000000.label"
    assert frames[-1].label_path == "sequences/labels/08/000001.label"
    assert semantickitti.load_labels(tmp_path, frames[0], len(drive[0][0].points)) is not None


def test_the_version_folder_is_found_in_any_case(drive, tmp_path):
    make("daps3d", tmp_path, drive)
    manifest = load_manifest("daps3d")
    assert resolve_version(manifest, tmp_path) == "daps-2"
    frames = scans.index(tmp_path, manifest, "daps-2")
    assert frames[0].points_path == "DAPS-2/data/38-18_7_72_90/clouds/000000.bin"


def test_training_scans_of_daps2_are_also_validation(drive, tmp_path):
    make("daps3d", tmp_path, drive)
    frames = scans.index(tmp_path, load_manifest("daps3d"), "daps-2")
    assert [{"train", "val"} & set(f.splits) for f in frames] == [{"train", "val"}] * 2 + [
        {"val"}
    ] * 2


def test_scans_without_labels_are_in_no_labeled_split(drive, tmp_path):
    make("synlidar", tmp_path, drive)
    frames = {f.frame_id: f for f in scans.index(tmp_path, load_manifest("synlidar"), None)}
    assert frames["01/2"].label_path is None and frames["01/2"].splits == ("train",)
    # every second of the labeled 0, 1, 3, 4, 5, 6
    assert [k for k in range(7) if "half" in frames[f"01/{k}"].splits] == [0, 3, 5]
    (tmp_path / "00/labels/000001.label").unlink()
    frames = {f.frame_id: f for f in scans.index(tmp_path, load_manifest("synlidar"), None)}
    assert frames["00/1"].splits == () and frames["00/2"].splits == ("val",)


def test_a_scan_of_16_byte_records_is_no_semanticstf_scan(drive, tmp_path):
    make("semanticstf", tmp_path, drive)
    manifest = load_manifest("semanticstf")
    frame = semanticstf.index(tmp_path, manifest, None)[0]
    (tmp_path / frame.points_path).write_bytes(bytes(16 * 7))
    with pytest.raises(UserError, match="points must be a multiple of 20 bytes, got 112 bytes"):
        semanticstf.load_points(tmp_path, frame.points_path)
    (tmp_path / "val/val.txt").write_text("velodyne/000000.bin,hail\n")
    with pytest.raises(UserError, match="line 1 must be 'path,weather' with one of dense_fog"):
        semanticstf.index(tmp_path, manifest, None)
    (tmp_path / "val/val.txt").write_bytes(b"\x80\xff\n")
    with pytest.raises(UserError, match="line 1 must be 'path,weather' with one of dense_fog"):
        semanticstf.index(tmp_path, manifest, None)
    (tmp_path / "val/val.txt").unlink()
    frames = semanticstf.index(tmp_path, manifest, None)
    assert frames[-1].splits == ("val",)


@pytest.mark.parametrize(
    ("name", "reader", "version", "message"),
    [
        (
            "synlidar",
            scans,
            None,
            r"must hold <sequence>/velodyne or SynLiDAR or .*correct the root",
        ),
        ("daps3d", scans, "daps-2", "must hold daps-2/data or daps-2, got neither"),
        (
            "synth4d",
            scans,
            "nuscenes_synth",
            "must hold nuscenes_synth, got none; correct the root",
        ),
        ("semanticstf", semanticstf, None, "must hold <sequence>/velodyne or SemanticSTF"),
        ("semanticposs", semantickitti, None, "must hold sequences or dataset/sequences or"),
    ],
)
def test_a_wrong_root_names_what_it_looked_for(tmp_path, name, reader, version, message):
    with pytest.raises(UserError, match=message):
        reader.index(tmp_path, load_manifest(name), version)


def test_scenes_of_another_data_set_are_refused(drive, tmp_path):
    make("synlidar", tmp_path, drive)
    for old, new in (("00", "a"), ("01", "b")):
        (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(UserError, match="data set 'synlidar': scenes must be in its split lists"):
        scans.index(tmp_path, load_manifest("synlidar"), None)


def test_synth4d_takes_its_splits_from_the_lists(drive, tmp_path):
    # Town03's mask ends in hexadecimal df, Town10HD's in ae: bit k (the lowest is 0) is frame k.
    kitti.write_synth4d(tmp_path, drive, load_manifest("synth4d"))
    frames = scans.index(tmp_path, load_manifest("synth4d"), "nuscenes_synth")
    trains = {f.frame_id: f.splits[0] == "train" for f in frames}
    df, ae = [1, 1, 1, 1, 1, 0, 1], [0, 1, 1, 1, 0, 1, 0]
    assert [trains[f"Town03/{k}"] for k in range(7)] == list(map(bool, df))
    assert [trains[f"Town10HD/{k}"] for k in range(7)] == list(map(bool, ae))
    (tmp_path / "nuscenes_synth/Town99").mkdir()
    shutil.copytree(
        tmp_path / "nuscenes_synth/Town03", tmp_path / "nuscenes_synth/Town99", dirs_exist_ok=True
    )
    frames = scans.index(tmp_path, load_manifest("synth4d"), "nuscenes_synth")
    assert frames[-1].scene == "Town99" and frames[-1].splits == ()


def test_npy_files_that_do_not_fit_are_refused(drive, tmp_path):
    kitti.write_synth4d(tmp_path, drive, load_manifest("synth4d"))
    frame = scans.index(tmp_path, load_manifest("synth4d"), "nuscenes_synth")[0]
    count = len(drive[0][0].points)
    with pytest.raises(UserError, match=f"labels must be one per point, got {count} for 3 points"):
        scans.load_labels(tmp_path, frame, 3)
    path = tmp_path / frame.points_path
    whole = path.read_bytes()
    np.save(path, np.zeros((5, 2)))
    with pytest.raises(
        UserError, match=r"points must be numbers \[N, 3 or more\], got float64 \[5, 2"
    ):
        scans.load_points(tmp_path, frame.points_path)
    path.write_bytes(whole[:300])
    with pytest.raises(UserError, match="points must be a whole .npy file of numbers"):
        scans.load_points(tmp_path, frame.points_path)
    np.save(path, np.array([{}], object))
    with pytest.raises(UserError, match="points must be a whole .npy file of numbers, got 'Object"):
        scans.load_points(tmp_path, frame.points_path)
    np.save(tmp_path / frame.label_path, np.full(count, -1))
    with pytest.raises(UserError, match="labels must be integers of 0..65535"):
        scans.load_labels(tmp_path, frame, count)

"""`index` and `check` on data sets that are whole, half there, or broken."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.check import remarks
from pipeline.image import decode_image
from pipeline.index import build_index, validate
from pipeline.manifest import load_manifest
from pipeline.sample_check import SAMPLED, spread
from tests.pipeline.datasets.writers import kitti
from tests.pipeline.datasets.writers.folder import write_folder


@pytest.fixture
def sequences(drive, tmp_path):
    short = [[dataclasses.replace(m, points=m.points[:50], ring=m.ring[:50]) for m in scene]
             for scene in drive]  # fmt: skip
    kitti.write_semantickitti(tmp_path, short, load_manifest("semantickitti"))
    return tmp_path


def problems(root):
    return validate(build_index("semantickitti", root), root)


def test_remarks_tell_what_is_absent(sequences):
    lines = remarks(build_index("semantickitti", sequences))
    assert lines == [
        "split 'train' of a complete copy has 19130 frames, here 7",
        "split 'val' of a complete copy has 4071 frames, here 7",
        "split 'test' of a complete copy has 20351 frames, here 0",
        "10 of 14 camera images are absent",
    ]
    for scene in ("00", "08"):
        shutil.rmtree(sequences / "sequences" / scene / "image_2")
        (sequences / "sequences" / scene / "poses.txt").unlink()
    (sequences / "sequences/00/labels/000004.label").unlink()
    assert remarks(build_index("semantickitti", sequences))[3:] == [
        "13 of 14 frames have labels",
        "no cameras, so no superpixels: usable for probing and fine-tuning",
        "no pairs of frames with poses, so no segments",
    ]


def test_unknown_ids_are_named_with_a_frame(sequences):
    path = sequences / "sequences/08/labels/000000.label"
    labels = np.fromfile(path, "<u4")
    labels[:2] = 7, 777
    path.write_bytes(labels.tobytes())
    (line,) = problems(sequences)
    assert "ids of data_manifests/semantickitti.yaml, got 7 (08/0), 777 (08/0); add them" in line
    assert line.endswith("(255 = ignored), since training on frames with them is refused")


def test_scans_and_labels_that_do_not_fit_are_named(sequences):
    path = sequences / "sequences/00/labels/000000.label"
    path.write_bytes(path.read_bytes()[:-8])
    scan = sequences / "sequences/08/velodyne/000006.bin"
    scan.write_bytes(scan.read_bytes()[:-5])
    first, second = problems(sequences)
    assert "00/0: " in first and "labels must be one per point, got 48 for 50 points" in first
    assert "08/6: " in second and "the file is cut short, copy it again" in second


def test_missing_files_are_counted_and_ten_listed(sequences):
    index = build_index("semantickitti", sequences)
    for path in sequences.glob("sequences/*/labels/*.label"):
        path.unlink()
    lines = validate(index, sequences)
    assert lines[0].count(".label") == 10 and "14 label files are missing: " in lines[0]


def test_labels_whose_scan_is_missing_are_counted_and_listed(sequences):
    """Half a download: the labels came whole, the scans did not."""
    for k in (0, 2, 6):
        (sequences / f"sequences/00/velodyne/{k:06d}.bin").unlink()
    (line,) = problems(sequences)
    folder = "sequences/00/labels"
    assert f"3 label files have no scan: {folder}/000000.label, {folder}/000002.label, " in line
    (sequences / "sequences/00/labels/notes.txt").write_text("mine")
    assert problems(sequences) == [line]


def test_poses_must_be_rigid(sequences):
    path = sequences / "sequences/00/poses.txt"
    path.write_text("2 0 0 0 0 1 0 0 0 0 1 0\n" + path.read_text().split("\n", 1)[1])
    assert any("00/0: T_world_lidar must hold a rotation" in line for line in problems(sequences))


def test_a_few_frames_stand_for_all():
    assert spread(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    rows = spread(np.arange(1000))
    assert len(rows) == SAMPLED and rows[0] == 0 and rows[-1] == 999


def test_commands_exit_3_on_problems_and_draw(sequences, tmp_path, capsys):
    place = ["--root", str(sequences), "--stores", str(tmp_path / "stores")]
    main(["check", "semantickitti", "--frames", "2", *place], standalone_mode=False)
    pages = [Path(line) for line in capsys.readouterr().out.splitlines() if line.endswith(".png")]
    assert [page.name for page in pages] == [
        "check-row000000-projections.png", "check-row000000-labels.png",
        "check-row000012-projections.png", "check-row000012-labels.png",
    ]  # fmt: skip
    assert all(decode_image(page).std() > 5 for page in pages)
    (sequences / "sequences/00/labels/000000.label").write_bytes(b"1")
    with pytest.raises(SystemExit, match="3"):
        main(["index", "--dataset", "semantickitti", *place], standalone_mode=False)
    assert "problem: 00/0: " in capsys.readouterr().out


def test_a_folder_without_labels_is_drawn(drive, tmp_path):
    from pipeline.check import draw_check

    root = tmp_path / "car"
    write_folder(root, [moments[:2] for moments in drive], load_manifest("folder"))
    for scene in ("home", "town"):
        shutil.rmtree(root / scene / "labels")
    index = build_index("folder", root)
    assert index.cameras == ("CAM_FRONT", "CAM_FRONT_RIGHT")
    (page,) = draw_check(index, root, tmp_path / "out", 1)
    assert page.name == "check-row000000-projections.png"

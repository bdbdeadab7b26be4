"""All four stages on the small real recordings, as a user runs them."""

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.store import open_store
from tests.pipeline.recordings import recording

pytestmark = pytest.mark.data


def run(dataset, root, stores):
    main(["run", "--dataset", dataset, "--root", str(root), "--stores", str(stores)],
         standalone_mode=False)  # fmt: skip


@pytest.fixture(scope="module")
def nuscenes(tmp_path_factory):
    stores = tmp_path_factory.mktemp("nuscenes")
    run("nuscenes", recording("nuscenes"), stores)
    return stores / "nuscenes-v1.0-mini"


@pytest.mark.slow
def test_nuscenes_keyframe(nuscenes):
    uv = open_store(nuscenes / "projections.zarr").read("uv", 0)
    seen = (uv[..., 0] >= 0).sum(1)
    # front, front right, back right, back, back left, front left; counts of data/README.md
    assert seen.tolist() == [3056, 3076, 3370, 4822, 4091, 3700]
    frames = open_store(nuscenes / "frames.zarr")
    assert frames.read("num_points", 0) == 34688
    assert not frames.read("has_labels", 0)
    assert frames.read("successor", 0) == -1
    assert frames.read("image_size", 0).tolist() == [[900, 1600]] * 6
    assert not open_store(nuscenes / "segments.zarr").read("ids", 0).any()
    superpixels = open_store(nuscenes / "superpixels-slic.zarr")
    ids, native = superpixels.read("ids", 0), superpixels.read("ids_native", 0)
    assert ids.shape == (6, 450, 800)
    assert native.shape == (6, 900, 1600)
    assert native.min() == 1  # SLIC covers the image, ids start at 1
    assert (superpixels.read("num_segments", 0) > 80).all()


@pytest.mark.slow
def test_kitti_drive_with_absent_cameras(tmp_path):
    run("semantickitti", recording("semantickitti"), tmp_path)
    folder = tmp_path / "semantickitti"
    frames = open_store(folder / "frames.zarr")
    has_image = [bool(frames.read("jpeg_bytes", row)[0]) for row in range(10)]
    assert has_image == [True] * 6 + [False] * 4
    assert frames.read("image_size", 9).tolist() == [[0, 0]]
    assert (open_store(folder / "projections.zarr").read("uv", 9) == -1).all()
    assert not open_store(folder / "superpixels-slic.zarr").read("ids", 9).any()
    count = int(frames.read("num_points", 0))
    assert len(np.unique(frames.read("ring", 0, slice(0, count)))) == 64
    successor = [int(frames.read("successor", row)) for row in range(10)]
    assert successor == [5, 6, 7, 8, 9, -1, -1, -1, -1, -1]
    segments = open_store(folder / "segments.zarr")
    assert segments.read("ids", 0, 0).max() > 50
    assert not segments.read("ids", 5).any()

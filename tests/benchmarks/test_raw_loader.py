"""The raw side of benchmarks/loader.py does the work that it is timed for."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.loader import RawCamera, augment_raw, project_raw, quantize_raw, read_raw
from pipeline.index import build_index
from tests.pipeline.recordings import recording

pytestmark = [pytest.mark.data, pytest.mark.slow]


@pytest.fixture(scope="module")
def keyframe(tmp_path_factory):
    root, folder = recording("nuscenes"), tmp_path_factory.mktemp("masks")
    frame = build_index("nuscenes", root, "v1.0-mini").frame(0)
    cameras = []
    for camera in frame.cameras:
        path = folder / f"{camera.token}.png"
        Image.fromarray(np.arange(900 * 1600).reshape(900, 1600).astype(np.uint8)).save(path)
        steps = (np.eye(4), np.eye(4), np.eye(4), np.asarray(camera.T_cam_lidar))
        cameras.append(RawCamera(root / camera.path, path, steps, np.asarray(camera.K)))
    return root / frame.points_path, cameras


def test_sees_the_points_that_stage_one_sees(keyframe):
    points_path, cameras = keyframe
    points = np.fromfile(points_path, np.float32).reshape(-1, 5)
    counts = [len(project_raw(points, camera, (900, 1600))) for camera in cameras]
    assert counts == pytest.approx([3056, 3076, 3370, 4822, 4091, 3700], abs=2)


def test_a_sample_has_the_sizes_of_the_published_loader(keyframe):
    points_path, cameras = keyframe
    raw = read_raw(points_path, cameras)
    assert raw[1].shape == (6, 3, 900, 1600) and raw[2].shape == (6, 900, 1600)
    points, images, masks, pairs = augment_raw(*raw, np.random.default_rng(0))
    assert images.shape == (6, 3, 224, 416) and masks.shape == (6, 224, 416)
    assert 0 <= images.min() and images.max() <= 1
    assert np.bincount(pairs[:, 1]).min() > 700 and pairs[:, 0].max() < len(points)
    assert (pairs.min(0) >= 0).all() and (pairs[:, 2:].max(0) < [224, 416]).all()
    voxels, features, inverse = quantize_raw(points)
    assert len(features) == len(voxels) == inverse.max() + 1 and len(inverse) == len(points)

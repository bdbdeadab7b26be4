"""The official nuScenes devkit on the synthetic drive: it opens, agrees on pixels and draws.

The devkit wants numpy 1, so it lives in an environment of its own, made once per machine in
SELKIE_CACHE (default ~/.cache/selkie); where that cannot be made the tests skip and say why.
"""

import textwrap

import numpy as np
import pytest
from scipy.spatial import cKDTree

from benchmarks.peers import DEVKIT, NoPeer
from pipeline.datasets import nuscenes
from pipeline.image import decode_image
from pipeline.index_table import to_frames
from pipeline.manifest import load_manifest
from pipeline.projection import project
from pipeline.splits import split_names

pytestmark = pytest.mark.slow

# What the peer does: open, read labels, project every scan into every camera, draw one sample.
SCRIPT = """
    import sys
    import numpy as np
    import matplotlib
    matplotlib.use("Agg")
    from nuscenes import NuScenes
    from nuscenes.utils.data_io import load_bin_file

    root, out = sys.argv[1:]
    nusc = NuScenes("v1.0-mini", root, verbose=False)
    found = {"counts": np.array([len(nusc.scene), len(nusc.sample)])}
    for sample in nusc.sample:
        lidar = sample["data"]["LIDAR_TOP"]
        path = f"{root}/{nusc.get('lidarseg', lidar)['filename']}"
        found[f"{lidar}/lidarseg"] = load_bin_file(path)
        path = f"{root}/{nusc.get('panoptic', lidar)['filename']}"
        found[f"{lidar}/panoptic"] = load_bin_file(path, "panoptic")
        for name, token in sample["data"].items():
            if name.startswith("CAM_"):
                points, depth, _ = nusc.explorer.map_pointcloud_to_image(lidar, token, min_dist=1.0)
                found[f"{lidar}/{name}"] = np.vstack([points[:2], depth])
    first = nusc.sample[0]
    nusc.render_sample(first["token"], out_path=f"{out}/sample.png", verbose=False)
    lidar, path = first["data"]["LIDAR_TOP"], f"{out}/lidarseg.png"
    nusc.render_sample_data(lidar, show_lidarseg=True, out_path=path, verbose=False)
    np.savez(f"{out}/found.npz", **found)
"""


@pytest.fixture(scope="module")
def found(city, tmp_path_factory):
    """What the devkit read, and the folder with what it drew."""
    out = tmp_path_factory.mktemp("devkit")
    try:
        DEVKIT.run(textwrap.dedent(SCRIPT), str(city), str(out))
    except NoPeer as error:
        pytest.skip(str(error))
    return dict(np.load(out / "found.npz")), out


@pytest.fixture(scope="module")
def frames(city):
    manifest = load_manifest("synthetic")
    return to_frames(nuscenes.index(city, manifest, "v1.0-mini"), split_names(manifest))


@pytest.mark.timeout(1800)
def test_it_reads_the_labels_that_we_read(found, frames, city):
    arrays, _ = found
    assert arrays["counts"].tolist() == [2, len(frames)]
    for frame in frames:
        panoptic = arrays[f"{frame.lidar_token}/panoptic"]
        labels = nuscenes.load_labels(city, frame, len(panoptic))
        np.testing.assert_array_equal(arrays[f"{frame.lidar_token}/lidarseg"], labels.semantic)
        np.testing.assert_array_equal(panoptic // 1000, labels.semantic)
        things = np.where(panoptic % 1000 > 0, panoptic, 0)
        np.testing.assert_array_equal(things, labels.instance)


@pytest.mark.timeout(1800)
def test_it_projects_to_the_pixels_that_we_find(found, frames, city):
    """Its chain is float32, so its positions are off by up to 0.01 px; its margin is wider."""
    arrays, _ = found
    for frame in frames:
        points = nuscenes.load_points(city, frame.points_path).points
        for camera in frame.cameras:
            theirs = arrays[f"{frame.lidar_token}/{camera.name}"].T  # u, v, depth; no point numbers
            T = camera.T_cam_lidar
            xyz = points[:, :3].astype(np.float64) @ T[:3, :3].T + T[:3, 3]
            ahead = np.flatnonzero(xyz[:, 2] > 0.5)
            exact = xyz[ahead] @ camera.K.T
            exact[:, :2] /= exact[:, 2:]
            distance, nearest = cKDTree(exact).query(theirs)
            assert len(theirs) > 100 and distance.max() < 0.02
            uv = project(points, camera)
            same = ahead[nearest]
            assert len(set(same.tolist())) == len(same)
            # within 0.02 px of the last column or row, rounding decides who sees a point
            clear = (theirs[:, :2] < [camera.width - 1.02, camera.height - 1.02]).all(axis=1)
            assert clear.mean() > 0.99 and (uv[same[clear], 0] >= 0).all()
            np.testing.assert_allclose(uv[same[clear]], theirs[clear, :2], atol=0.52)
            inner = (uv > 1).all(axis=1) & (uv < [camera.width - 2, camera.height - 2]).all(axis=1)
            assert set(np.flatnonzero(inner).tolist()) <= set(same.tolist())


@pytest.mark.timeout(1800)
def test_it_draws_a_sample(found):
    _, out = found
    for name in ("sample.png", "lidarseg.png"):
        assert decode_image(out / name).std() > 5

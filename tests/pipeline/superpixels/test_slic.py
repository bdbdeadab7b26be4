import cv2
import numpy as np
import pytest
import skimage.segmentation

from pipeline.config import override
from pipeline.image import decode_image
from pipeline.superpixels.table import SOURCES
from pipeline.types import Camera
from tests.pipeline.recordings import recording

CAMERA = Camera("CAM", "token", "a.jpg", 60, 80, np.eye(3), np.eye(4), 0)


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (6, 8, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    return np.clip(blocks + rng.normal(0, 8, blocks.shape), 0, 255).astype(np.uint8)


def _source(*assignments):
    module = SOURCES.load("slic")
    return module.load(override(module.Config(), assignments), "cpu")


def test_defaults_are_the_published_ones():
    config = SOURCES.load("slic").Config()
    assert (config.n_segments, config.compactness, config.sigma) == (150, 6.0, 3.0)
    assert SOURCES.load("slic").MAX_CATEGORIES == 0


def peer(image):
    return skimage.segmentation.slic(image, n_segments=150, compactness=6, sigma=3.0, start_label=0)


def boundary(ids):
    edge = np.zeros(ids.shape, bool)
    edge[:, :-1] |= ids[:, 1:] != ids[:, :-1]
    edge[:-1] |= ids[1:] != ids[:-1]
    return edge


def recall(truth, found, tolerance):
    """Return the share of true boundary pixels with a found one at most so many pixels away."""
    near = cv2.dilate(boundary(found).astype(np.uint8), np.ones((2 * tolerance + 1,) * 2)) > 0
    return near[boundary(truth)].mean()


def test_equal_to_scikit_image_up_to_rounding(image):
    segmentation, expected = _source().segment(image, CAMERA), peer(image)
    assert segmentation.ids.dtype == np.uint16 and segmentation.category is None
    assert abs(segmentation.num_segments - (expected.max() + 1)) <= 2
    for one, other in ((expected, segmentation.ids), (segmentation.ids, expected)):
        assert recall(one, other, 0) > 0.95  # OpenCV's CIELAB is up to 0.2 off scikit-image's
        assert recall(one, other, 1) == 1


def test_large_images_are_clustered_coarse_to_fine(image):
    large = cv2.resize(image, (1000, 700), interpolation=cv2.INTER_CUBIC)
    fine, whole = _source(), _source("coarse_to_fine=false")
    found, expected = fine.segment(large, CAMERA).ids, whole.segment(large, CAMERA).ids
    assert found.shape == expected.shape == (700, 1000)
    assert not np.array_equal(found, expected)
    assert min(recall(expected, found, 4), recall(found, expected, 4)) > 0.85
    just_below = cv2.resize(image, (1000, 599))
    np.testing.assert_array_equal(
        fine.segment(just_below, CAMERA).ids, whole.segment(just_below, CAMERA).ids
    )


def test_ids_cover_the_image_without_gaps_and_repeat(image):
    one, two = (_source().segment(image, CAMERA) for _ in range(2))
    np.testing.assert_array_equal(one.ids, two.ids)
    assert np.unique(one.ids).tolist() == list(range(1, one.num_segments + 1))
    assert one.num_segments > 20


def test_n_segments_is_obeyed(image):
    few = _source("n_segments=12").segment(image, CAMERA).num_segments
    assert 4 <= few <= 18  # SLIC starts from a grid of about so many and drops small ones


@pytest.mark.data
def test_real_image():
    (path,) = (recording("nuscenes") / "samples/CAM_FRONT").iterdir()
    image = decode_image(path)
    found, expected = _source().segment(image, CAMERA), peer(image)
    assert found.ids.shape == (900, 1600) and found.ids.min() == 1
    assert abs(found.num_segments - (expected.max() + 1)) <= 8
    whole = _source("coarse_to_fine=false").segment(image, CAMERA)
    assert recall(expected, whole.ids, 2) > 0.93
    assert recall(expected, found.ids, 2) > 0.7  # other local minima; docs/benchmarks.md has truth

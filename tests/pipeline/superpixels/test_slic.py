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


def test_equal_to_scikit_image_up_to_the_one(image):
    segmentation = _source().segment(image, CAMERA)
    peer = skimage.segmentation.slic(image, n_segments=150, compactness=6, sigma=3.0, start_label=0)
    assert segmentation.ids.dtype == np.uint16 and segmentation.category is None
    np.testing.assert_array_equal(segmentation.ids, peer + 1)


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
    segmentation = _source().segment(decode_image(path), CAMERA)
    assert segmentation.ids.shape == (900, 1600)
    assert segmentation.ids.min() == 1 and segmentation.num_segments == 111  # scikit-image 0.26

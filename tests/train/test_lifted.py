import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.train.small_runs import paths_of, small_recipe
from train.augment import Config as Augment
from train.augment import PairedSample, resize_eval
from train.downstream import Downstream
from train.lifted import LIFTED_STAGES, evaluate_lifted, lift, train_lifted
from train.metrics import scores
from train.models.image_teacher import Config, make_teacher
from train.stores import Stores

pytestmark = pytest.mark.usefixtures("one_thread")
AUGMENT, K, TRAIN = small_recipe().augment, 16, np.arange(4)


@pytest.fixture
def opened(stores):
    return Stores(paths_of(stores))


def two_gray_images(pairs):
    """Points 0 to 3, a black and a white image of 8 x 8, pairs (point, image, row, col)."""
    images = tuple(np.full((8, 8, 3), value, np.uint8) for value in (0, 255))
    ids = tuple(np.ones((8, 8), np.uint16) for _ in images)
    columns = np.array(pairs, np.int64).reshape(-1, 4).T
    return PairedSample(np.zeros((4, 4), np.float32), np.zeros(4, np.uint16), images, ids, *columns)


def test_a_point_seen_twice_gets_the_mean_and_an_unseen_one_nothing():
    teacher = make_teacher(Config("raw_rgb"))
    sample = two_gray_images([(3, 0, 1, 1), (1, 1, 6, 2), (3, 1, 0, 0)])
    features, points = lift(teacher, sample, Augment(height=8, width=8))
    black = (0 - teacher.mean[:, 0, 0]) / teacher.std[:, 0, 0]
    white = (1 - teacher.mean[:, 0, 0]) / teacher.std[:, 0, 0]
    assert points.tolist() == [1, 3]
    torch.testing.assert_close(features, torch.stack([white, (black + white) / 2]))


def test_no_pair_is_no_feature():
    features, points = lift(
        make_teacher(Config("raw_rgb")), two_gray_images([]), Augment(height=8, width=8)
    )
    assert features.shape == (0, 3) and len(points) == 0


def test_features_are_those_of_the_upsampled_map(opened):
    teacher = make_teacher(Config("tiny"))
    sample = opened.paired_sample(0, LIFTED_STAGES)
    features, points = lift(teacher, sample, AUGMENT)
    resized = resize_eval(sample, AUGMENT)
    images = torch.from_numpy(np.stack(resized.images)).permute(0, 3, 1, 2).float() / 255
    whole = F.interpolate(
        teacher(images), images.shape[2:], mode="bilinear", align_corners=True
    ).permute(0, 2, 3, 1)
    for number in range(0, len(points), 97):
        mine = resized.pair_point == int(points[number])
        expected = whole[resized.pair_image[mine], resized.pair_row[mine], resized.pair_col[mine]]
        torch.testing.assert_close(features[number], expected.mean(0), rtol=1e-4, atol=1e-4)


def test_points_are_those_that_the_projections_call_seen(opened):
    sample = opened.paired_sample(1, LIFTED_STAGES)
    _, points = lift(make_teacher(Config("raw_rgb")), sample, AUGMENT)
    seen = np.flatnonzero(opened.seen(1, len(sample.points)))
    # rounding to the resized image drops pairs in its last half pixel
    assert set(points.tolist()) <= set(seen.tolist())
    assert len(points) > 0.97 * len(seen)


def test_a_linear_layer_learns_from_the_teacher(opened):
    teacher = make_teacher(Config("tiny"))

    def miou(config):
        final = train_lifted(teacher, opened, TRAIN, K, AUGMENT, config)
        matrix = evaluate_lifted(teacher, final, opened, TRAIN, K, AUGMENT)
        return scores(matrix).miou

    learned = miou(Downstream(epochs=20, batch_size=1, lr=0.2, max_voxels=1000))
    assert learned > miou(Downstream(epochs=1, lr=1e-9)) + 5

"""Gradients repeat to the last bit with several threads (design.md 5).

Indexing with a tensor would fail here: its gradient is added up atomically on the CPU.
"""

import pytest
import torch
import torch.nn.functional as F

from train.losses import cosine, point_to_segment, ppkt, st_slidr, superpixel_nce, temporal_nce


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def draw(limit, count, seed):
    return torch.randint(0, limit, (count,), generator=torch.Generator().manual_seed(seed))


def superpixels(features):
    image, row, col = draw(2, 20_000, 1), draw(32, 20_000, 2), draw(64, 20_000, 3)
    ids = draw(50, 2 * 32 * 64, 4).view(2, 32, 64)
    feature_map = torch.randn(2, 16, 8, 16, generator=torch.Generator().manual_seed(5))
    voxels = draw(300, 20_000, 6)
    config = superpixel_nce.Config()
    return superpixel_nce.loss(features, feature_map, ids, voxels, image, row, col, config)


def temporal(features):
    rows, segment = draw(300, 20_000, 1), draw(40, 20_000, 2)
    generator, config = torch.Generator().manual_seed(0), temporal_nce.Config()
    frame = (features, rows, segment)
    return temporal_nce.loss(*frame, *frame, torch.zeros(40).long(), generator, config)


def points(features):
    config = point_to_segment.Config()
    return point_to_segment.loss(features, draw(300, 20_000, 1), draw(40, 20_000, 2), 40, config)


def pairs(feature_map):
    image, row, col = draw(2, 20_000, 1), draw(32, 20_000, 2), draw(64, 20_000, 3)
    return feature_map, draw(300, 20_000, 6), image, row, col


def random_map(seed):
    return torch.randn(2, 16, 8, 16, generator=torch.Generator().manual_seed(seed))


def points_to_pixels(features):
    feature_map, *columns = pairs(random_map(5))
    generator, config = torch.Generator().manual_seed(0), ppkt.Config()
    return ppkt.loss(features, feature_map, (32, 64), *columns, generator, config)


def distances(features):
    teacher_map, *columns = pairs(random_map(5))
    return cosine.loss(features, teacher_map, (32, 64), *columns)


def tolerant(features):
    ids = draw(50, 2 * 32 * 64, 4).view(2, 32, 64)
    feature_map, *columns = pairs(random_map(5))
    config = st_slidr.Config()
    return st_slidr.loss(features, feature_map, random_map(7), ids, *columns, config)


LOSSES = [superpixels, temporal, points, points_to_pixels, distances, tolerant]


@pytest.mark.parametrize("term_of", LOSSES)
def test_gradients_repeat(term_of):
    raw = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    results = []
    for _ in range(5):
        features = F.normalize(raw, dim=1).requires_grad_()
        value = term_of(features).value
        value.backward()
        results.append((value.item(), features.grad))
    for value, grad in results[1:]:
        assert value == results[0][0]
        assert torch.equal(grad, results[0][1])

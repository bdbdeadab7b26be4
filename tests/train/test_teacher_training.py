import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import UserError
from train.models.teacher_files import load_weights
from train.models.tiny_network import TinyNetwork
from train.teacher_training import Config, cluster, shared_directions, train_teacher

SIZES = {"words": (12, 10, 8), "dims": (6, 7, 8)}
SMALL = Config(pairs=8, places=40, view=(24, 32), patches=640, rounds=2, **SIZES)


@pytest.fixture
def image_paths(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(8):
        paths.append(tmp_path / f"{number}.png")
        image = cv2.resize(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8), (48, 36))
        cv2.imwrite(str(paths[-1]), image)
    return paths


def test_writes_a_teacher_and_repeats_with_its_seed(image_paths, tmp_path):
    out = [tmp_path / "weights" / f"{name}.safetensors" for name in "abc"]
    torch.manual_seed(0)
    first, second, other = (
        train_teacher(image_paths, path, seed, SMALL)
        for path, seed in zip(out, (1, 1, 2), strict=True)
    )
    assert first == second != other
    assert out[0].read_bytes() == out[1].read_bytes() != out[2].read_bytes()
    assert all(0 < part <= 1 for part in (first.patches, first.textures, first.kinds))
    network = TinyNetwork(**SIZES)
    load_weights(network, out[0])
    assert torch.isfinite(network(torch.rand(1, 3, 36, 48))).all()


def test_clusters_are_found_and_a_center_without_rows_stays():
    generator = torch.Generator().manual_seed(0)
    truth = F.normalize(torch.tensor([[1.0, 0.1, 0], [0, 1, 0.1], [0.1, 0, -1]]), dim=1)
    rows = F.normalize(truth.repeat(50, 1) + 0.05 * torch.randn(150, 3, generator=generator), dim=1)
    centers = cluster(rows, 12, 10, generator)
    assert (truth @ centers.T).amax(1).min() > 0.98
    assert torch.allclose(centers.norm(dim=1), torch.ones(12), atol=1e-5)
    same = torch.tensor([[1.0, 0]]).repeat(5, 1)  # the second center wins nothing
    assert torch.equal(cluster(same, 2, 3, generator), same[:2])


def test_shared_directions_find_the_part_that_two_views_share():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(4000, 1, generator=generator)
    own = [torch.randn(4000, 2, generator=generator) for _ in range(2)]
    mix = torch.randn(3, 3, generator=generator)
    views = [torch.cat([shared, part], 1) @ mix + 5 for part in own]
    weight, bias, correlation = shared_directions(*views, 2, ridge=1e-3)
    assert correlation[0] > 0.9 > 0.1 > correlation[1] >= 0
    out = views[0] @ weight.T + bias
    assert torch.corrcoef(torch.cat([out[:, :1], shared], 1).T)[0, 1].abs() > 0.95
    assert out.mean(0).abs().max() < 0.05
    assert torch.allclose(out.std(0), correlation, atol=0.05)  # its correlation is its size


def test_refuses_fewer_images_than_a_batch(image_paths, tmp_path):
    with pytest.raises(UserError, match="must have at least 8 images, got 1"):
        train_teacher(image_paths[:1], tmp_path / "a.safetensors", 0, SMALL)

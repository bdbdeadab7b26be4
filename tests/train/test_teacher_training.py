import math

import cv2
import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from train.models.image_teacher import Config as TeacherConfig
from train.models.image_teacher import make_teacher
from train.teacher_training import (
    Config,
    _balance,
    _common_places,
    _draw_boxes,
    _views,
    train_teacher,
)

SMALL = Config(batch=2, view=(24, 32), places=16, clusters=8)


@pytest.fixture
def image_paths(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        image = cv2.resize(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8), (48, 36))
        cv2.imwrite(str(paths[-1]), image)
    return paths


def test_writes_a_teacher_and_repeats_with_its_seed(image_paths, tmp_path):
    out = [tmp_path / "weights" / f"{name}.safetensors" for name in "abc"]
    torch.manual_seed(0)
    losses = [
        train_teacher(image_paths, path, 3, seed, SMALL)
        for path, seed in zip(out, (1, 1, 2), strict=True)
    ]
    assert losses[0] == losses[1] != losses[2]
    assert out[0].read_bytes() == out[1].read_bytes() != out[2].read_bytes()
    assert all(math.isfinite(loss) for loss in losses[0])
    teacher = make_teacher(TeacherConfig("tiny", weights=str(out[0])))
    assert torch.isfinite(teacher(torch.rand(1, 3, 36, 48))).all()


def test_a_place_is_the_same_in_both_views():
    generator = torch.Generator().manual_seed(0)
    row, col = torch.meshgrid(torch.linspace(-1, 1, 60), torch.linspace(-1, 1, 80), indexing="ij")
    images = torch.stack([col, row, col * row]).expand(4, 3, 60, 80)  # says where it is
    boxes = [_draw_boxes(4, 0.7, generator) for _ in range(2)]
    places = _common_places(boxes, 50, generator)
    seen = [
        torch.nn.functional.grid_sample(
            _views(images, center, half, (60, 80)),
            own[:, None],
            padding_mode="border",
            align_corners=False,
        )
        for (center, half), own in zip(boxes, places, strict=True)
    ]
    # a pixel is 1/30 of the image; half of one at the borders
    assert (seen[0] - seen[1]).abs().max() < 1.5 / 30
    assert (boxes[0][1][:, 0] < 0).any() or (boxes[1][1][:, 0] < 0).any()  # some are mirrored


def test_assignments_are_balanced():
    scores = torch.rand(400, 8, generator=torch.Generator().manual_seed(0))
    scores[:, 0] += 1  # everyone prefers cluster 0
    target = _balance(scores, 0.05)
    assert torch.allclose(target.sum(1), torch.ones(400), atol=1e-5)
    assert target.sum(0).min() > 35 and target.sum(0).max() < 65  # 50 each


def test_refuses_fewer_images_than_a_batch(image_paths, tmp_path):
    with pytest.raises(UserError, match="must have at least 2 images, got 1"):
        train_teacher(image_paths[:1], tmp_path / "a.safetensors", 1, 0, SMALL)

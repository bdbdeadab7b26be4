import torch
import torch.nn.functional as F

from train.teacher_views import common_places, cut_views, draw_boxes, normalize, recolor


def test_a_place_is_the_same_in_both_views():
    generator = torch.Generator().manual_seed(0)
    row, col = torch.meshgrid(torch.linspace(-1, 1, 60), torch.linspace(-1, 1, 80), indexing="ij")
    images = torch.stack([col, row, col * row]).expand(4, 3, 60, 80)  # says where it is
    boxes = [draw_boxes(4, 0.7, generator) for _ in range(2)]
    places = common_places(boxes, 50, generator)
    seen = [
        F.grid_sample(
            cut_views(images, *box, (60, 80)),
            own[:, None],
            padding_mode="border",
            align_corners=False,
        )
        for box, own in zip(boxes, places, strict=True)
    ]
    # a pixel is 1/30 of the image; half of one at the borders
    assert (seen[0] - seen[1]).abs().max() < 1.5 / 30
    assert (boxes[0][1][:, 0] < 0).any() or (boxes[1][1][:, 0] < 0).any()  # some are mirrored


def test_the_whole_box_is_the_image_and_a_negative_half_its_mirror_image():
    images = torch.rand(1, 3, 4, 6)
    whole = cut_views(images, torch.zeros(1, 2), torch.ones(1, 2), (4, 6))
    assert torch.allclose(whole, images, atol=1e-6)
    mirrored = cut_views(images, torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]]), (4, 6))
    assert torch.allclose(mirrored, images.flip(3), atol=1e-6)


def test_recoloring_with_no_strength_changes_nothing_and_stays_in_range_with_much():
    generator = torch.Generator().manual_seed(0)
    views = torch.rand(2, 3, 4, 6, generator=generator)
    assert torch.allclose(recolor(views, 0.0, generator), views, atol=1e-6)
    strong = recolor(views, 2.0, generator)
    assert strong.min() >= 0 and strong.max() <= 1
    assert (strong - views).abs().max() > 0.1


def test_normalize_by_hand():
    views = torch.tensor([0.485, 0.456 + 0.224, 0.406 - 0.225])[None, :, None, None]
    assert torch.allclose(normalize(views).flatten(), torch.tensor([0.0, 1.0, -1.0]), atol=1e-6)

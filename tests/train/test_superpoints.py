import pytest
import torch

from train.superpoints import check_pairs, pool_superpoints

AT = torch.tensor([0, 1, 2, 3])
POINTS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
MAP = torch.tensor([[[[3.0, 3.0, 0.0, 0.0]], [[0.0, 0.0, 5.0, 5.0]]]])  # one 1x4 image, at its size


def pooled(ids, voxels, **options):
    zero = torch.zeros(len(voxels), dtype=torch.int64)
    return pool_superpoints(
        POINTS, MAP, torch.tensor([[ids]]), voxels, zero, zero, AT[: len(voxels)], **options
    )


def test_by_hand():
    # pixels (1,0) (1,0) (0,1) (0,1); id 7 has the first three, 9 the last; voxel 1 is paired twice
    found = pooled([7, 7, 7, 9], torch.tensor([0, 1, 1, 2]))
    expected = torch.tensor([[1 / 3, 2 / 3], [0.6, 0.8]])
    torch.testing.assert_close(found.superpoint_means, expected, atol=1e-5, rtol=0)
    expected = torch.tensor([[2 / 3, 1 / 3], [0.0, 1.0]])
    torch.testing.assert_close(found.superpixel_means, expected, atol=1e-5, rtol=0)


def test_both_sides_have_the_same_rows():
    found = pooled([4, 0, 8, 6], torch.tensor([0, 1, 2]))  # 0 is none, 6 has no pair
    assert len(found.superpoint_means) == len(found.superpixel_means) == 2
    assert found.superpixels.num_superpixels == 2
    kept = pooled([4, 0, 8, 6], torch.tensor([0, 1, 2]), keep_none=True)
    assert len(kept.superpoint_means) == len(kept.superpixel_means) == 3


def test_no_superpixel_with_a_pair_is_none():
    assert pooled([0, 0, 0, 6], torch.tensor([0, 1, 2])) is None
    assert pooled([5, 5, 5, 6], torch.zeros(0, dtype=torch.int64)) is None


def test_refuses_columns_of_two_lengths():
    with pytest.raises(ValueError, match=r"pair arrays must have one length, got \[3, 4\]"):
        check_pairs(AT, AT[:3], AT)

import pytest
import torch

from pipeline.xdecoder.swin import (
    SwinBlock,
    WindowAttention,
    apart_after_shift,
    cut,
    join,
    offsets,
)


def test_offsets_by_hand():
    # window 2: rows of the table are (row difference + 1) * 3 + column difference + 1
    assert offsets(2, torch.device("cpu")).tolist() == [
        [4, 3, 1, 0],
        [5, 4, 2, 1],
        [7, 6, 4, 3],
        [8, 7, 5, 4],
    ]


def test_join_undoes_cut_and_windows_are_blocks():
    x = torch.arange(2 * 6 * 9 * 2.0).reshape(2, 6, 9, 2)
    windows = cut(x, 3)
    assert windows.shape == (2, 6, 9, 2)
    torch.testing.assert_close(windows[0, 1], x[0, :3, 3:6].reshape(9, 2))
    torch.testing.assert_close(join(windows, 6, 9, 3), x)


def _block(dim, heads, window, shift):
    torch.manual_seed(0)
    block = SwinBlock(dim, heads, window, shift)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape))
    return block


def attend_slowly(attention: WindowAttention, y: torch.Tensor, shift: int) -> torch.Tensor:
    """Attention of every padded position to those of its shifted window, one pair at a time."""
    height, width, dim = y.shape
    window, heads = attention.window, attention.heads
    query, key, value = attention.qkv(y).reshape(height, width, 3, heads, -1).unbind(2)
    out = torch.zeros(height, width, heads, dim // heads)

    def region(size, place):  # which piece of the image a place is in after the shift
        moved = (place - shift) % size
        return moved // window, 0 if place >= shift or not shift else 1

    places = [(r, c) for r in range(height) for c in range(width)]
    for r, c in places:
        near = [
            (i, j)
            for i, j in places
            if region(height, i) == region(height, r) and region(width, j) == region(width, c)
        ]
        score = []
        for i, j in near:
            row = (r - i + window - 1) * (2 * window - 1) + (c - j + window - 1)
            bias = attention.relative_position_bias_table[row]
            score.append((query[r, c] * key[i, j]).sum(-1) / key.shape[-1] ** 0.5 + bias)
        weight = torch.stack(score).softmax(0)
        out[r, c] = sum(w[:, None] * value[i, j] for w, (i, j) in zip(weight, near, strict=True))
    return attention.proj(out.reshape(height, width, dim))


@pytest.mark.parametrize(("shift", "size"), [(0, (5, 7)), (1, (5, 7)), (1, (6, 6)), (1, (2, 3))])
def test_block_equals_its_slow_twin(shift, size):
    block = _block(8, 2, 3, shift)
    x = torch.randn(1, *size, 8)
    height, width = (-(-side // 3) * 3 for side in size)
    padded = torch.zeros(height, width, 8)
    padded[: size[0], : size[1]] = block.norm1(x)[0]
    want = x + attend_slowly(block.attn, padded, shift)[None, : size[0], : size[1]]
    want = want + block.mlp(block.norm2(want))
    torch.testing.assert_close(block(x), want, atol=1e-5, rtol=1e-5)


def test_nothing_is_apart_inside_the_image():
    apart = apart_after_shift(6, 6, 3, 1, torch.device("cpu"))
    assert apart.shape == (4, 9, 9)
    assert not apart[0].any()  # the first window holds no seam
    assert apart[3].any()
    assert torch.equal(apart, apart.transpose(1, 2))

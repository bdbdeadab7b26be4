import torch
from torch import nn

from pipeline.xdecoder.attention import Attention, Perceptron


def _pair(dim=24, heads=4):
    torch.manual_seed(0)
    peer = nn.MultiheadAttention(dim, heads, batch_first=True)
    ours = Attention(dim, heads)
    ours.load_state_dict(peer.state_dict())  # same names and shapes
    return ours, peer


def test_equals_multihead_attention_of_torch():
    ours, peer = _pair()
    q, k, v = torch.randn(3, 2, 5, 24).unbind()
    blocked = torch.rand(2, 5, 5) < 0.5
    blocked[:, :, 0] = False
    want, _ = peer(q, k, v, attn_mask=blocked.repeat_interleave(4, dim=0))
    torch.testing.assert_close(ours(q, k, v, blocked[:, None]), want, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours(q, k, v), peer(q, k, v)[0], atol=1e-6, rtol=0)


def test_causal_means_blind_for_what_comes_later():
    ours, _ = _pair()
    x = torch.randn(1, 6, 24)
    later = torch.triu(torch.ones(6, 6, dtype=torch.bool), 1)
    torch.testing.assert_close(ours(x, x, x, is_causal=True), ours(x, x, x, later))


def test_keys_may_come_in_any_order():
    ours, _ = _pair()
    q, k, v = torch.randn(1, 3, 24), torch.randn(1, 7, 24), torch.randn(1, 7, 24)
    order = torch.randperm(7)
    torch.testing.assert_close(ours(q, k, v), ours(q, k[:, order], v[:, order]))


def test_perceptron_by_hand():
    net = Perceptron(2, 2, 1)
    net.load_state_dict(
        {
            "layers.0.weight": torch.tensor([[1.0, 0.0], [0.0, -1.0]]),
            "layers.0.bias": torch.tensor([0.0, 1.0]),
            "layers.1.weight": torch.tensor([[2.0, 3.0]]),
            "layers.1.bias": torch.tensor([0.5]),
        }
    )
    # hidden relu(4, -5 + 1) = (4, 0); out 2 * 4 + 0 + 0.5, and no ReLU at the end
    torch.testing.assert_close(net(torch.tensor([4.0, 5.0])), torch.tensor([8.5]))
    torch.testing.assert_close(net(torch.tensor([-1.0, 5.0])), torch.tensor([0.5]))

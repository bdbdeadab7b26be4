import torch
import torch.nn.functional as F

from train.models.tiny_network import Surroundings, TinyNetwork, even_contrast


def test_surroundings_by_hand():
    layer = Surroundings(1, 1, 2).requires_grad_(False)
    layer.maps[0].weight.fill_(1), layer.maps[0].bias.fill_(0.5), layer.maps[1].weight.fill_(10)
    x = torch.tensor([[1.0, 3], [5, 7]])[None, None]  # its mean over the 2 x 2 square is 4
    assert torch.equal(layer(x), x + 0.5 + 40)


def test_projecting_before_enlarging_is_projecting_after():
    torch.manual_seed(0)
    layer, x = Surroundings(5, 4, 3).requires_grad_(False), torch.rand(2, 5, 7, 12)
    enlarged = [F.interpolate(scale, (7, 12), mode="bilinear") for scale in layer.scales(x)]
    weight = torch.cat([part.weight for part in layer.maps], 1)
    expected = F.conv2d(torch.cat(enlarged, 1), weight, layer.maps[0].bias)
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_even_contrast_forgets_exposure_and_keeps_flat_areas_flat():
    image = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    brighter = 3 * image + 2
    assert (even_contrast(image) - even_contrast(brighter)).abs().mean() < 0.07
    assert even_contrast(torch.full((1, 3, 20, 20), 0.7)).abs().max() < 1e-5


def test_channels_and_sizes_of_each_depth():
    network, images = TinyNetwork().eval(), torch.rand(1, 3, 16, 24)
    assert network.patches(images).shape == (1, 166, 4, 6)
    assert network.textures(images).shape == (1, 304, 4, 6)
    assert network.kinds(images).shape == (1, 352, 4, 6)
    assert network(images[:, :, :13, :21]).shape == (1, network.DIM, 4, 6)

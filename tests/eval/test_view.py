import torch
from torch import nn

from eval.view import predict
from tests.train.small_runs import paths_of
from train.stores import Stores
from train.voxelize import VoxelConfig


class Elsewhere(nn.Module):
    """A network on another device, which says where its input came."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, device="meta"))

    def forward(self, features, coordinates):
        self.places = {features.device.type, coordinates.device.type}
        return torch.eye(3)[torch.arange(len(features)) % 3]


def test_a_frame_is_predicted_where_the_network_is(stores):
    network = Elsewhere()
    shown = predict(network, Stores(paths_of(stores)), 0, VoxelConfig())
    assert network.places == {"meta"}
    assert set(shown.predicted.tolist()) == {0, 1, 2}

"""spconv behind the contract of train/engines/contract.py, as a peer for the benchmark.

Its voxels are numbered from 0, so the cloud is moved; its weights are [C_out, K, K, K, C_in] with
the first spatial axis slowest, where ours are [K^3, C_in, C_out] with the first axis fastest, so
`use_kernel` turns them and results can be compared.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.engines.contract import check_cloud

try:
    import spconv as package
    from spconv import pytorch as spconv
except ModuleNotFoundError:  # its twin in Triton, of the same interface
    import spconv_triton as package
    from spconv_triton import pytorch as spconv

NAME = "spconv"
VERSION = f"{package.__name__} {getattr(package, '__version__', '')}"
DEEPEST = 16  # the grid's sides are rounded up to whole voxels of this stride


@dataclass(frozen=True)
class SparseTensor:
    """Features on the voxels of one level of a cloud."""

    inner: spconv.SparseConvTensor
    stride: int

    @property
    def features(self) -> Tensor:
        """The features [V, D]."""
        return self.inner.features

    @property
    def coordinates(self) -> Tensor:
        """The voxels [V, 4] int32, from 0, multiples of the stride."""
        cells = self.inner.indices
        return torch.cat([cells[:, :1], cells[:, 1:] * self.stride], dim=1)

    def with_features(self, features: Tensor) -> "SparseTensor":
        """Return the same voxels with other features [V, any]."""
        return SparseTensor(self.inner.replace_feature(features), self.stride)


def make_tensor(features: Tensor, coordinates: Tensor, maps: object = ()) -> SparseTensor:
    """Return a tensor at stride 1 of the cloud moved by whole voxels of the deepest stride."""
    check_cloud(features, coordinates)
    low = torch.div(coordinates[:, 1:].amin(0), DEEPEST, rounding_mode="floor") * DEEPEST
    cells = torch.cat([coordinates[:, :1], coordinates[:, 1:] - low], dim=1).int().contiguous()
    sides = [(side // DEEPEST + 1) * DEEPEST for side in cells[:, 1:].amax(0).tolist()]
    num_scans = int(cells[:, 0].max()) + 1
    return SparseTensor(spconv.SparseConvTensor(features, cells, sides, num_scans), 1)


class _Layer(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.layer = self.make(in_channels, out_channels)

    def use_kernel(self, kernel: Tensor) -> None:
        """Take a kernel [K^3, C_in, C_out] of ours."""
        side = self.kernel_size
        blocks = kernel.detach().view(side, side, side, *kernel.shape[1:])  # z, y, x, in, out
        with torch.no_grad():
            self.layer.weight.copy_(blocks.permute(4, 2, 1, 0, 3))

    def run(self, tensor: SparseTensor, key: str, stride: int) -> SparseTensor:
        """Run the layer under the key by which spconv finds a pair table again."""
        self.layer.indice_key = key
        return SparseTensor(self.layer(tensor.inner), stride)


class Convolution(_Layer):
    """A submanifold convolution, or a strided one to the coarser level."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride)

    def make(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return spconv's layer."""
        if self.stride == 1:
            return spconv.SubMConv3d(
                in_channels, out_channels, self.kernel_size, bias=False, indice_key="set later"
            )
        return spconv.SparseConv3d(
            in_channels, out_channels, self.kernel_size, self.stride, bias=False, indice_key="later"
        )

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        """Map [V, C_in] to [V', C_out]."""
        stride = tensor.stride * self.stride
        key = f"same{stride}" if self.stride == 1 else f"down{stride}"
        return self.run(tensor, key, stride)


class TransposedConvolution(_Layer):
    """spconv's inverse convolution, back to the finer level."""

    def make(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return spconv's layer."""
        return spconv.SparseInverseConv3d(
            in_channels, out_channels, self.kernel_size, indice_key="set later", bias=False
        )

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        """Map [V', C_in] to [V, C_out]."""
        return self.run(tensor, f"down{tensor.stride}", tensor.stride // self.stride)

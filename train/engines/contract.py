"""What every sparse engine offers, and the parts they share: cloud check, weight draws, self check.

An engine module has `NAME`, `VERSION`, a `SparseTensor`, `make_tensor(features, coordinates, maps)`
with maps = what the network will ask for, a hint, `Convolution`, `TransposedConvolution`,
`runs_on(device)` and `self_check(device)`. A 1x1 convolution is a plain GEMM on the rows and is
written once, here (`Pointwise`). Both engines draw their weights through `Kernel`, so one seed
gives one network whichever runs it.
"""

import math
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.errors import check

MapKey = tuple[int, int, int]  # a kernel map: finer stride, coarser stride, kernel size


class Sparse(Protocol):
    """Features on voxels; rows at stride 1 keep the order in which they were given."""

    features: Tensor  # [V, D] floating

    @property
    def coordinates(self) -> Tensor:
        """Return the voxels [V, 4] int32 (batch, x, y, z), multiples of the tensor's stride."""
        ...

    def with_features(self, features: Tensor) -> "Sparse":
        """Return the same voxels with other features [V, any]."""
        ...


def check_cloud(features: Tensor, coordinates: Tensor) -> None:
    """Check shapes and types of what `make_tensor` is given.

    Raises:
        UserError: not [V, D] floating features with [V, 4] int32 coordinates on one device.
    """
    check(
        features.ndim == 2 and features.is_floating_point(),
        f"features: must be floating [V, D], got {features.dtype} {list(features.shape)}",
    )
    check(
        coordinates.ndim == 2 and coordinates.shape[1] == 4 and coordinates.dtype == torch.int32,
        "coordinates: must be int32 [V, 4] (batch, x, y, z), got "
        f"{coordinates.dtype} {list(coordinates.shape)}; voxelize first",
    )
    check(
        len(features) == len(coordinates),
        f"features and coordinates: must have as many rows, got {len(features)} and "
        f"{len(coordinates)}",
    )
    check(
        features.device == coordinates.device,
        f"features and coordinates: must be on one device, got {features.device} and "
        f"{coordinates.device}",
    )


def check_unique(num_rows: int, num_voxels: int) -> None:
    """Refuse a cloud in which two rows share a voxel.

    Raises:
        UserError: fewer distinct voxels than rows (MinkowskiEngine itself drops rows silently).
    """
    check(
        num_rows == num_voxels,
        f"coordinates: must be unique, got {num_rows} rows in {num_voxels} voxels; keep one point "
        "per voxel with train.voxelize.voxelize",
    )


class Kernel(nn.Module):
    """Weights of one convolution over a K x K x K neighborhood.

    `kernel` is [K^3, C_in, C_out]; the first spatial axis runs fastest; offsets are -(K//2)..K//2
    for odd K and 0..K-1 for even K, in voxels of the finer level. Drawn as MinkowskiEngine's
    default: uniform in +-1/sqrt(fan), fan = K^3 * C_in (C_out for the transposed convolution).

    Source: MinkowskiEngine 0.5.4 (MIT), MinkowskiConvolutionBase.reset_parameters; we draw here
    instead, once, so that the random stream is the same with every engine.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        bias: bool = False,
        fan_channels: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            check(value >= 1, f"convolution: {name} must be at least 1, got {value}")
        check(
            2 <= kernel_size <= 9 and 1 <= stride <= 8,
            f"convolution: kernel_size must be 2 to 9 and stride 1 to 8, got {kernel_size} and "
            f"{stride}; a 1x1 convolution is Pointwise",
        )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = kernel_size, stride
        volume = kernel_size**3
        bound = 1 / math.sqrt(volume * (fan_channels or in_channels))
        self.kernel = nn.Parameter(
            torch.empty(volume, in_channels, out_channels).uniform_(-bound, bound)
        )
        self.bias = (
            nn.Parameter(torch.empty(1, out_channels).uniform_(-bound, bound)) if bias else None
        )

    def extra_repr(self) -> str:
        """Return what print(module) shows."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, bias={self.bias is not None}"
        )


class Pointwise(nn.Module):
    """A 1x1 convolution at stride 1: one GEMM on the rows, the same in every engine.

    `kernel` is [C_in, C_out], `bias` [1, C_out], as in MinkowskiEngine's checkpoints.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_channels)
        self.kernel = nn.Parameter(torch.empty(in_channels, out_channels).uniform_(-bound, bound))
        self.bias = (
            nn.Parameter(torch.empty(1, out_channels).uniform_(-bound, bound)) if bias else None
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map features [V, C_in] to [V, C_out]."""
        if self.bias is None:
            return features.mm(self.kernel)
        return torch.addmm(self.bias, features, self.kernel)


def run_self_check(engine: ModuleType, device: torch.device | str = "cpu") -> str:
    """Run one convolution forward and backward whose result is known; return a line for doctor.

    Two voxels that touch along x, features 1 and 2, kernel[k] = k: the first sees itself with
    offset 13 (the center) and its neighbor with 14; the second its neighbor with 12.

    Raises:
        RuntimeError: the engine computes something else.
    """
    coordinates = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32, device=device)
    features = torch.tensor([[1.0], [2.0]], device=device, requires_grad=True)
    convolution = engine.Convolution(1, 1, kernel_size=3).to(device)
    with torch.no_grad():
        convolution.kernel.copy_(torch.arange(27.0).view(27, 1, 1))
    result = convolution(engine.make_tensor(features, coordinates)).features
    result.sum().backward()
    got = (result.flatten().tolist(), features.grad.flatten().tolist())
    expected = ([13.0 + 2 * 14, 12.0 + 2 * 13], [13.0 + 12, 14.0 + 13])
    if got != expected:
        raise RuntimeError(
            f"engine '{engine.NAME}': one convolution must give {expected}, got {got}; "
            "reinstall it or use ENGINE=native"
        )
    return f"{engine.NAME} ({engine.VERSION}): one convolution forward and backward on {device}, ok"


def run_sample(engine: ModuleType, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Run two convolutions of a fixed cloud forward and backward; return output and gradients.

    On the CPU, and the same numbers for every engine and device up to rounding: for comparing them.
    """
    random = torch.Generator().manual_seed(0)
    coordinates = torch.unique(torch.randint(-6, 7, (600, 4), generator=random), dim=0)
    coordinates = coordinates[coordinates[:, 0].abs() < 2].int()
    features = torch.randn(len(coordinates), 8, generator=random).to(device).requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        same = engine.Convolution(8, 16, kernel_size=3).to(device)
        down = engine.Convolution(16, 8, kernel_size=2, stride=2).to(device)
    coarse = down(same(engine.make_tensor(features, coordinates.to(device))))
    coarse.features.square().sum().backward()
    _, order = torch.unique(coarse.coordinates, dim=0, return_inverse=True)  # engines order freely
    results = {
        "output": coarse.features[torch.argsort(order)],
        "features' gradient": features.grad,
        "kernel's gradient": same.kernel.grad,
        "strided kernel's gradient": down.kernel.grad,
    }
    return {name: value.detach().cpu() for name, value in results.items()}

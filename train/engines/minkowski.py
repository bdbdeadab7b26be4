"""The reference engine: the contract of contract.py on MinkowskiEngine (the only importer of it).

Coordinates and features in, MinkowskiEngine's kernels called directly, our own parameters. With
more than one OpenMP thread its kernel maps come in a random order and sums differ in the last bits.
Where it is linked to a libgomp of its own, OMP_NUM_THREADS=1 prevents that (`python -m train` sets
it); where it takes torch's, as on MKL, torch.set_num_threads undoes the variable: measured, six
processes, five different losses. So its maps are built under `_one_thread`; its BLAS has threads of
its own.
"""

import collections
import collections.abc
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from pipeline.errors import UserError, check
from train.engines.contract import Kernel, MapKey, check_cloud, check_unique, run_self_check


def _import_minkowski() -> ModuleType:
    # 0.5.4 takes Sequence from collections, where Python 3.10 no longer has it; and its import
    # leaves its own folder on sys.path, where its 'utils' and 'modules' would answer for others
    path = list(sys.path)
    collections.Sequence = collections.abc.Sequence
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*CPU_ONLY.*")
            import MinkowskiEngine
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        raise UserError(
            f"engine 'minkowski': MinkowskiEngine is installed but does not load ({error}); "
            "run 'make env' to compile it again, or use ENGINE=native"
        ) from error
    finally:
        del collections.Sequence
        sys.path[:] = path
    return MinkowskiEngine


ME = _import_minkowski()
BACKEND = sys.modules["MinkowskiEngineBackend._C"]
NAME = "minkowski"
VERSION = f"MinkowskiEngine {ME.__version__}"


@contextmanager
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@dataclass(frozen=True)
class SparseTensor:
    """Features on the voxels of one level of a cloud."""

    features: Tensor  # [V, D]
    key: object  # ME.CoordinateMapKey: which level
    manager: object | None  # ME.CoordinateManager: all levels of this cloud; None = empty cloud

    @property
    def coordinates(self) -> Tensor:
        """Return the voxels [V, 4] int32 (batch, x, y, z), multiples of the level's stride."""
        if self.manager is None:
            return torch.zeros(0, 4, dtype=torch.int32, device=self.features.device)
        return self.manager.get_coordinates(self.key)

    def with_features(self, features: Tensor) -> "SparseTensor":
        """Return the same voxels with other features [V, any]."""
        return SparseTensor(features, self.key, self.manager)


def make_tensor(features: Tensor, coordinates: Tensor, maps: Sequence[MapKey] = ()) -> SparseTensor:
    """Return a tensor at stride 1 whose rows are in the given order.

    Args:
        features: [V, D] float32 or float64.
        coordinates: [V, 4] int32 (batch, x, y, z), any sign, every row once.
        maps: not used, MinkowskiEngine builds its maps when first asked.

    Raises:
        UserError: wrong shapes or types, two rows in one voxel, or on a GPU while compiled for the
            CPU.
    """
    check_cloud(features, coordinates)
    check(
        runs_on(features.device),
        f"engine 'minkowski': must be compiled with CUDA to run on {features.device}, got one for "
        "the CPU; run 'make env' where nvcc and the GPU are (docs/gpu.md), or use ENGINE=native",
    )
    if len(features) == 0:  # MinkowskiEngine's convolution crashes the process on an empty cloud
        return SparseTensor(features, None, None)
    # only the manager is kept; features are not passed, since rows of duplicates would vanish
    with _one_thread():
        made = ME.SparseTensor(coordinates.new_zeros(len(features), 1).float(), coordinates)
    check_unique(len(features), len(made.F))
    return SparseTensor(features, made.coordinate_map_key, made.coordinate_manager)


class _MinkowskiKernel(Kernel):
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            bias,
            fan_channels=out_channels if self.transposed else in_channels,
        )
        self.region = ME.KernelGenerator(kernel_size=kernel_size, stride=stride, dimension=3)

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        # float32 and float64 only: under autocast the sparse part stays in the weights' type
        features = tensor.features.to(self.kernel.dtype)
        if tensor.manager is None:
            result = tensor.with_features(features.mm(self.kernel.sum(0)))
        else:
            function = (
                ME.MinkowskiConvolutionTransposeFunction
                if self.transposed
                else ME.MinkowskiConvolutionFunction
            )
            out_key = BACKEND.CoordinateMapKey(4)
            with _one_thread():
                rows = function.apply(
                    features,
                    self.kernel,
                    self.region,
                    BACKEND.ConvolutionMode.DEFAULT,
                    tensor.key,
                    out_key,
                    tensor.manager,
                )
            result = SparseTensor(rows, out_key, tensor.manager)
        return result if self.bias is None else result.with_features(result.features + self.bias)


class Convolution(_MinkowskiKernel):
    """Sparse convolution; stride 1 keeps the voxels, a larger one moves to the coarser level."""


class TransposedConvolution(_MinkowskiKernel):
    """Sparse transposed convolution, back to the finer level that the cloud already has."""

    transposed = True


def runs_on(device: torch.device | str) -> bool:
    """Return whether the engine computes on a device: on CUDA only where it was compiled for it."""
    return torch.device(device).type == "cpu" or ME.is_cuda_available()


def self_check(device: torch.device | str = "cpu") -> str:
    """Run one convolution forward and backward; return a line for doctor."""
    return run_self_check(sys.modules[__name__], device)

"""The engine that needs no compiler: the contract of contract.py in PyTorch, on any device.

A convolution is a gather and one GEMM per kernel offset, then one sum per output row over the pairs
of kernel_map.py. That sum is `embedding_bag` over the products sorted by output: no atomics, so
results are the same bits run to run, and 0.5 ms where index_add_ takes 1.3 (45,000 products of 96
channels, 2 cores; the GEMMs beside it take 8). On a GPU one Triton kernel does all of it, where it
runs and is the faster way (`fused_kernels`).
"""

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import click
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from train.engines.contract import Kernel, MapKey, check_cloud, run_self_check
from train.engines.coordinate_map import CoordinateMap
from train.engines.kernel_map import Side

NAME = "native"
VERSION = f"PyTorch {torch.__version__}"


@dataclass(frozen=True)
class SparseTensor:
    """Features on the voxels of one level of a cloud."""

    features: Tensor  # [V, D]
    stride: int
    map: CoordinateMap

    @property
    def coordinates(self) -> Tensor:
        """Return the voxels [V, 4] int32 (batch, x, y, z), multiples of the level's stride."""
        cells = self.map.levels[self.stride].cells
        return torch.cat([cells[:, :1], cells[:, 1:] * self.stride], dim=1).int()

    def with_features(self, features: Tensor) -> "SparseTensor":
        """Return the same voxels with other features [V, any]."""
        return SparseTensor(features, self.stride, self.map)


def make_tensor(features: Tensor, coordinates: Tensor, maps: Sequence[MapKey] = ()) -> SparseTensor:
    """Return a tensor at stride 1 whose rows are in the given order.

    Args:
        features: [V, D] floating.
        coordinates: [V, 4] int32 (batch, x, y, z), any sign, every row once.
        maps: kernel maps to build now, all at once; others are built when first asked for.

    Raises:
        UserError: wrong shapes or types, two rows in one voxel, or a span too large to number.
    """
    check_cloud(features, coordinates)
    return SparseTensor(features, 1, CoordinateMap.of_cells(coordinates.long(), maps))


class _GatherGemmSum(torch.autograd.Function):
    """out[o] = sum over pairs (i, o) of offset k of features[i] @ kernel[k], and its gradients."""

    @staticmethod
    def forward(ctx, features: Tensor, kernel: Tensor, source: Side, target: Side) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.source, ctx.target = source, target
        products = features.new_empty(len(source.rows), kernel.shape[2])  # [P, D_out]
        buffer = source.new_buffer(features)
        for k, part in enumerate(products.split(source.counts)):
            torch.mm(source.gather(features, k, buffer), kernel[k], out=part)
        return target.add_up(products)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        features, kernel = ctx.saved_tensors
        source, target = ctx.source, ctx.target
        needs_features, needs_kernel = ctx.needs_input_grad[:2]
        gradient = gradient.contiguous()
        grad_kernel = torch.empty_like(kernel) if needs_kernel else None
        products = features.new_empty(len(source.rows), kernel.shape[1] if needs_features else 0)
        buffer, grad_buffer = source.new_buffer(features), target.new_buffer(gradient)
        for k, part in enumerate(products.split(source.counts)):
            grad_rows = target.gather(gradient, k, grad_buffer)
            if needs_kernel:
                rows = source.gather(features, k, buffer)
                torch.mm(rows.t(), grad_rows, out=grad_kernel[k])
            if needs_features:
                torch.mm(grad_rows, kernel[k].t(), out=part)
        return source.add_up(products) if needs_features else None, grad_kernel, None, None


@functools.cache
def load_fused(device: torch.device) -> ModuleType | None:
    """Return the Triton kernels where they run on a GPU, which is tried once; else None.

    Triton comes with torch for CUDA, but compiles with the machine's own C compiler.
    """
    capability = torch.cuda.get_device_capability(device)
    try:
        from train.engines import fused

        if torch.version.hip or capability < fused.LEAST_CAPABILITY:
            return None
        fused.try_once(device)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        click.echo(
            f"engine 'native': Triton's kernels do not run on {device} "
            f"({type(error).__name__}: {lines[0][:200]}); slower ones do. See docs/gpu.md",
            err=True,
        )
        return None
    return fused


def fused_kernels(features: Tensor, kernel: Tensor, pairs: Side) -> ModuleType | None:
    """Return the Triton kernels where they are the way to convolve such rows, else None."""
    if features.device.type != "cuda":
        return None
    fused = load_fused(features.device)
    return fused if fused and fused.serves(features, kernel, pairs) else None


def _convolve(module: Kernel, tensor: SparseTensor, stride: int, pairs: tuple[Side, Side]):
    features, kernel = tensor.features, module.kernel
    device = features.device.type
    is_mixed = torch.is_autocast_enabled(device)
    if is_mixed:
        features = features.to(torch.get_autocast_dtype(device))
    features = features.contiguous()
    fused = fused_kernels(features, kernel, pairs[0])
    if fused and (is_mixed or kernel.dtype == features.dtype):
        rows = fused.FusedConvolution.apply(features, kernel, *pairs)
    else:
        rounded = kernel.to(features.dtype) if is_mixed else kernel
        rows = _GatherGemmSum.apply(features, rounded, *pairs)
    if module.bias is not None:
        rows = rows + module.bias
    return SparseTensor(rows, stride, tensor.map)


class Convolution(Kernel):
    """Sparse convolution; stride 1 keeps the voxels, a larger one moves to the coarser level."""

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        """Map [V, C_in] to [V', C_out]."""
        stride = tensor.stride * self.stride
        pairs = tensor.map.kernel_map(tensor.stride, stride, self.kernel_size)
        return _convolve(self, tensor, stride, (pairs.fine, pairs.coarse))


class TransposedConvolution(Kernel):
    """Sparse transposed convolution, back to the finer level that the cloud already has."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, fan_channels=out_channels)

    def forward(self, tensor: SparseTensor) -> SparseTensor:
        """Map [V', C_in] to [V, C_out].

        Raises:
            RuntimeError: this cloud was never convolved down from the level asked for.
        """
        stride = tensor.stride // self.stride
        if stride * self.stride != tensor.stride or stride not in tensor.map.levels:
            raise RuntimeError(
                f"transposed convolution: stride {self.stride} must lead back to a level of the "
                f"cloud, got a tensor of stride {tensor.stride}; convolve down to it first"
            )
        pairs = tensor.map.kernel_map(stride, tensor.stride, self.kernel_size)
        return _convolve(self, tensor, stride, (pairs.coarse, pairs.fine))


def runs_on(_device: torch.device | str) -> bool:
    """Return whether the engine computes on a device: PyTorch does on all of its own."""
    return True


def self_check(device: torch.device | str = "cpu") -> str:
    """Run one convolution forward and backward; return a line for doctor."""
    return run_self_check(sys.modules[__name__], device)

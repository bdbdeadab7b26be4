"""The engine without a compiler: the contract of contract.py in plain PyTorch, on any device.

A convolution is a gather and one GEMM per kernel offset (or one grouped GEMM for all, `can_group`),
then one sum per output row over the pairs of kernel_map.py. That sum is `embedding_bag` over the
products sorted by output: no atomics, so results are the same bits run to run, and 0.5 ms where
index_add_ takes 1.3 (45,000 products of 96 channels, 2 cores; the GEMMs beside it take 8).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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


def has_grouped_gemm(features: Tensor) -> bool:
    """Return whether PyTorch multiplies many groups of such rows at once.

    It does so for bfloat16 on GPUs of compute capability 8.0 and later; elsewhere its grouped_mm is
    a loop of GEMMs too, and one that first reads the groups' sizes back to the host.
    """
    return (
        features.device.type == "cuda"
        and features.dtype == torch.bfloat16
        and torch.cuda.get_device_capability(features.device) >= (8, 0)
    )


def can_group(features: Tensor, kernel: Tensor) -> bool:
    """Return whether one grouped GEMM does all offsets of a kernel: rows of whole 16 bytes."""
    is_aligned = kernel.shape[1] % 8 == 0 and kernel.shape[2] % 8 == 0
    return is_aligned and len(features) > 0 and has_grouped_gemm(features)


class _GatherGemmSum(torch.autograd.Function):
    """out[o] = sum over pairs (i, o) of offset k of features[i] @ kernel[k], and its gradients."""

    @staticmethod
    def forward(ctx, features: Tensor, kernel: Tensor, source: Side, target: Side) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.source, ctx.target = source, target
        if can_group(features, kernel):
            rows = features.index_select(0, source.rows)
            return target.add_up(F.grouped_mm(rows, kernel, offs=source.ends))
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
        if can_group(features, kernel):
            return *_grouped_gradients(ctx, features, kernel, gradient), None, None
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


def _grouped_gradients(
    ctx, features: Tensor, kernel: Tensor, gradient: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of features and kernel, each by one grouped GEMM, where needed."""
    source, target = ctx.source, ctx.target
    grad_features = grad_kernel = None
    grad_rows = gradient.index_select(0, target.rows)  # [P, D_out]
    if ctx.needs_input_grad[1]:
        rows = features.index_select(0, source.rows)  # again: kept, it would be most of the memory
        grad_kernel = F.grouped_mm(rows.t(), grad_rows, offs=source.ends)
    if ctx.needs_input_grad[0]:
        products = F.grouped_mm(grad_rows, kernel.transpose(1, 2), offs=source.ends)
        grad_features = source.add_up(products)
    return grad_features, grad_kernel


def _convolve(module: Kernel, tensor: SparseTensor, stride: int, pairs: tuple[Side, Side]):
    features, kernel = tensor.features, module.kernel
    device = features.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        features, kernel = features.to(dtype), kernel.to(dtype)
    rows = _GatherGemmSum.apply(features.contiguous(), kernel, *pairs)
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

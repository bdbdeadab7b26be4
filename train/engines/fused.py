"""A sparse convolution as one Triton kernel, for the native engine on GPUs.

In: features, a kernel [K, C_in, C_out] and the two sides of a kernel map. Out: what a gather, one
GEMM per offset and a sum give, with no row per pair in memory: a block of outputs walks over the
offsets and gathers its inputs as it goes. Sums have a fixed order, so the same bits come twice.
Twin: `_GatherGemmSum` in native.py. Launches are what a step waits for, so there are four a layer.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from train.engines.kernel_map import Side

TYPES = (torch.float32, torch.bfloat16, torch.float16)
LEAST_CAPABILITY = (8, 0)  # bfloat16 and cp.async; older GPUs take the GEMMs
ROWS = 64  # of a block
# Products of a layer above which full float32 goes through a GEMM per offset: on an H100 a step of
# these kernels does 6 TFLOP/s there, one of GEMMs 13, but 27 GEMMs a layer take 3 ms to launch.
MAX_PRODUCTS_FLOAT32 = 3_000_000_000
PROGRAMS = 1024  # that the kernel's gradient is cut into, at least: a GPU has some hundred cores


@triton.jit(do_not_specialize=["num_rows", "num_offsets"])
def _multiply(
    x,  # [V, C_in]
    table,  # [K, V'] int32 rows of x, -1 = none
    w,  # [K, C_in, C_out] with the strides given
    out,  # [V', C_out]
    num_rows,  # V'
    num_offsets,  # K
    c_in,
    c_out,
    stride_k,
    stride_in,
    stride_out,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = m < num_rows
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    entry = table + m
    for k in range(num_offsets):
        rows = tl.load(entry, mask=inside, other=-1)
        entry += num_rows
        if tl.max(rows, 0) >= 0:
            there = (rows >= 0)[:, None]
            first = x + rows.to(tl.int64)[:, None] * c_in
            for start in range(0, c_in, BLOCK_K):
                c = start + tl.arange(0, BLOCK_K)
                a = tl.load(first + c[None, :], mask=there & (c < c_in)[None, :], other=0.0)
                b = tl.load(
                    w + k * stride_k + c[:, None] * stride_in + n[None, :] * stride_out,
                    mask=(c < c_in)[:, None] & (n < c_out)[None, :],
                    other=0.0,
                )
                total = tl.dot(a, b.to(a.dtype), total, input_precision=PRECISION)
    where = out + m.to(tl.int64)[:, None] * c_out + n[None, :]
    tl.store(where, total.to(out.dtype.element_ty), mask=inside[:, None] & (n < c_out)[None, :])


@triton.jit
def _kernel_gradient(
    x,  # [V, C_in]
    gradient,  # [V', C_out]
    source,  # [P] int32 rows of x, by offset
    target,  # [P] int32 rows of the gradient
    ends,  # [K] int32, where each offset's pairs end
    parts,  # [parts, K, C_in, C_out] float32, to be summed
    c_in,
    c_out,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    k, part = tl.program_id(0), tl.program_id(2)
    tiles = tl.cdiv(c_out, BLOCK_N)
    c = (tl.program_id(1) // tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    n = (tl.program_id(1) % tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
    end = tl.load(ends + k)
    begin = tl.load(ends + k - 1, mask=k > 0, other=0)
    share = tl.cdiv(tl.cdiv(end - begin, tl.num_programs(2)), BLOCK_P) * BLOCK_P
    first = begin + part * share
    last = tl.minimum(first + share, end)
    total = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
    for start in range(first, last, BLOCK_P):
        pair = start + tl.arange(0, BLOCK_P)
        inside = pair < last
        row_in = tl.load(source + pair, mask=inside, other=0).to(tl.int64)
        row_out = tl.load(target + pair, mask=inside, other=0).to(tl.int64)
        a = tl.load(
            x + row_in[:, None] * c_in + c[None, :],
            mask=inside[:, None] & (c < c_in)[None, :],
            other=0.0,
        )
        b = tl.load(
            gradient + row_out[:, None] * c_out + n[None, :],
            mask=inside[:, None] & (n < c_out)[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)
    row = (part * tl.num_programs(0) + k) * c_in + c
    where = parts + row.to(tl.int64)[:, None] * c_out + n[None, :]
    tl.store(where, total, mask=(c < c_in)[:, None] & (n < c_out)[None, :])


def try_once(device: torch.device) -> None:
    """Multiply one row on a device, which compiles a kernel: whatever stands in the way raises."""
    one = torch.ones(1, 1, device=device)
    multiply(one, one[None], torch.zeros(1, 1, dtype=torch.int32, device=device))
    torch.cuda.synchronize(device)


def serves(features: Tensor, kernel: Tensor, pairs: Side) -> bool:
    """Return whether the kernels here are the faster way to convolve such rows on a GPU."""
    if features.dtype not in TYPES:
        return False
    num_products = len(pairs.rows) * kernel.shape[1] * kernel.shape[2]
    is_full = features.dtype == torch.float32 and precision() == "ieee"
    return not is_full or num_products <= MAX_PRODUCTS_FLOAT32


def multiply(features: Tensor, kernel: Tensor, table: Tensor, opposite: bool = False) -> Tensor:
    """Return out[o] = sum over the offsets k of features[table[k, o]] @ kernel[k].

    Args:
        features: [V, C_in], contiguous, of one of `TYPES`.
        kernel: [K, C_in, C_out] with any strides; rounded to the features' type as it is read.
        table: [K, V'] int32, contiguous, rows of the features, -1 = none.
        opposite: take kernel[K - 1 - k] instead of kernel[k].

    Returns:
        [V', C_out] of the features' type, summed in float32.
    """
    num_offsets, c_in, c_out = kernel.shape
    out = features.new_empty(table.shape[1], c_out)
    if not out.numel():
        return out
    first, stride_k = (kernel[-1], -kernel.stride(0)) if opposite else (kernel, kernel.stride(0))
    width = block(c_out, 128)
    with torch.cuda.device_of(features):  # Triton launches on the current one
        _multiply[triton.cdiv(len(out), ROWS), triton.cdiv(c_out, width)](
            features, table, first, out, len(out), num_offsets, c_in, c_out,
            stride_k, *kernel.stride()[1:], BLOCK_M=ROWS, BLOCK_N=width, BLOCK_K=block(c_in, 32),
            PRECISION=precision(), num_warps=8 if width > 64 else 4,
        )  # fmt: skip
    return out


def kernel_gradient(features: Tensor, gradient: Tensor, source: Side, target: Side) -> Tensor:
    """Return [K, C_in, C_out] float32: per offset the sum of features[i]^T gradient[o].

    Args:
        features: [V, C_in], contiguous.
        gradient: [V', C_out], contiguous, of the same type.
        source: the rows of the features in the kernel map.
        target: the rows of the gradient.
    """
    num_offsets, c_in, c_out = len(source.counts), features.shape[1], gradient.shape[1]
    side_in, side_out = block(c_in, 64), block(c_out, 64)
    tiles = triton.cdiv(c_in, side_in) * triton.cdiv(c_out, side_out)
    most = triton.cdiv(max(source.counts), ROWS)  # parts that all have a pair
    num_parts = max(1, min(triton.cdiv(PROGRAMS, num_offsets * tiles), most))
    parts = features.new_empty((num_parts, num_offsets, c_in, c_out), dtype=torch.float32)
    with torch.cuda.device_of(features):
        _kernel_gradient[num_offsets, tiles, num_parts](
            features, gradient, source.rows, target.rows, source.ends, parts, c_in, c_out,
            BLOCK_P=ROWS // 2, BLOCK_C=side_in, BLOCK_N=side_out, PRECISION=precision(),
            num_warps=4,
        )  # fmt: skip
    return parts[0] if num_parts == 1 else parts.sum(0)


def block(channels: int, most: int) -> int:
    """Return a power of two of at least 16 that holds the channels, or the most allowed."""
    return min(most, max(16, triton.next_power_of_2(channels)))


def precision() -> str:
    """Return how float32 is multiplied, as PyTorch is told to."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


class FusedConvolution(torch.autograd.Function):
    """A convolution over the pairs of a kernel map, and its gradients."""

    @staticmethod
    def forward(ctx, features: Tensor, kernel: Tensor, source: Side, target: Side) -> Tensor:
        """Return out[o] = sum over the pairs (i, o) of offset k of features[i] @ kernel[k]."""
        ctx.save_for_backward(features, kernel)
        ctx.source, ctx.target = source, target
        return multiply(features, kernel, target.table_of(source))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of features and kernel."""
        features, kernel = ctx.saved_tensors
        source, target = ctx.source, ctx.target
        gradient = gradient.contiguous()
        grad_features = grad_kernel = None
        if ctx.needs_input_grad[0]:
            # within a level, back along an offset is forth along the opposite one
            is_level = target.center is not None
            table = target.table_of(source) if is_level else source.table_of(target)
            grad_features = multiply(gradient, kernel.transpose(1, 2), table, opposite=is_level)
        if ctx.needs_input_grad[1]:
            grad_kernel = kernel_gradient(features, gradient, source, target).to(kernel.dtype)
        return grad_features, grad_kernel, None, None

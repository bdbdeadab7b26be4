"""What the GPU benchmarks share: formats, synchronized clocks, peak memory, rates of the device.

Everything also runs on a CPU, where the figures mean nothing, so that a test can run it.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pipeline.errors import check


@contextmanager
def tensor_cores(name: str) -> Iterator[None]:
    """Let float32 products be rounded to tf32 inside, or not, as a format says."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def autocast(name: str, device: torch.device) -> torch.autocast:
    """Return the context of a forward pass in a format."""
    return torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16")


def wait(device: torch.device) -> None:
    """Let the device finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def open_device(name: str) -> torch.device:
    """Return a device.

    Raises:
        UserError: it is not here.
    """
    device = torch.device(name)
    check(
        device.type != "cuda" or torch.cuda.is_available(),
        f"--device {name}: must be a device of this machine, got no CUDA; run it where a GPU is",
    )
    return device


def now(device: torch.device) -> float:
    """Return the time in seconds when the device has finished what it was given."""
    wait(device)
    return time.perf_counter()


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Return how long a call takes until the device is done."""
    start = now(device)
    run()
    return now(device) - start


@dataclass(frozen=True)
class Timing:
    """The rounds of one contestant."""

    best_s: float
    median_s: float


def time_in_turns(
    runs: dict[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, Timing]:
    """Time every call once per round, in turns, after two rounds to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 2):
        for name, run in runs.items():
            each = seconds_of(run, device)
            if turn >= 2:
                seconds[name].append(each)
    return {name: Timing(min(each), statistics.median(each)) for name, each in seconds.items()}


def peak_mb(run: Callable[[], object], device: torch.device) -> float | None:
    """Return by how much a call raises the memory of torch's allocator; None on a CPU."""
    if device.type != "cuda":
        return None
    wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    wait(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def gemm_rate(name: str, device: torch.device, size: int) -> float:
    """Return the floating point operations a second of a square matrix product in a format."""
    some, other = (torch.randn(size, size, device=device) for _ in range(2))

    def run() -> None:
        with tensor_cores(name), autocast(name, device):
            torch.mm(some, other)

    return 2 * size**3 / time_in_turns({"": run}, device, 5)[""].best_s


def copy_rate(device: torch.device, num_bytes: int) -> float:
    """Return the bytes a second that a copy reads and writes."""
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / time_in_turns({"": lambda: target.copy_(source)}, device, 5)[""].best_s


def describe(device: torch.device) -> str:
    """Return the device's name and the versions that a figure belongs to."""
    name = "CPU (figures mean nothing)"
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"{name}, PyTorch {torch.__version__}"


def in_mb(value: float | None) -> str:
    """Return a number of megabytes to print."""
    return "-" if value is None else f"{value:.0f}"

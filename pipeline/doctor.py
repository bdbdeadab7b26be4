"""What is installed here and what is not: versions, engine, superpixel sources, BLAS, GPU."""

import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.superpixels.table import SOURCES

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-4  # of the largest value; float32 sums in another order differ by some 1e-6
PACKAGES = ("torch", "numpy", "numba", "zarr", "dask", "pyarrow", "scikit-image", "hdbscan")


def report() -> tuple[list[str], bool]:
    """Return the lines to print and whether stage one and an engine are usable."""
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    engines, usable = _engines()
    lines = [
        f"python       {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores",
        f"packages     {versions}",
        *engines,
        *_sources(),
        *_blas_and_gpu(),
    ]
    return lines, usable


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _engines() -> tuple[list[str], bool]:
    """Run convolutions forward and backward on every engine and device, and compare the results.

    Each runs in a process of its own, so that one that crashes does not take doctor along.
    """
    lines, results = [], {}
    torch = _required("torch")
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("minkowski", "native"):
            for device in devices:
                path = Path(folder) / f"{name}-{device}.pt"
                line = _run_engine(name, device, path)
                lines.append(f"engine       {name}: {line}")
                if path.exists():
                    results[f"{name} on {device}"] = torch.load(path, weights_only=True)
    verdicts, agree = compare(results)
    return [*lines, *verdicts], bool(results) and agree


def _run_engine(name: str, device: str, path: Path) -> str:
    code = (
        "import sys, torch; from train.engines import contract; from train.engines.table import "
        "ENGINES; name, device, path = sys.argv[1:]; engine = ENGINES.load(name)\n"
        "print(engine.self_check(device))\n"
        "torch.save(contract.run_sample(engine, device), path)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, name, device, str(path)],
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode == 0:
        return done.stdout.strip().splitlines()[-1]
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return f"not usable on {device} ({last})"


def compare(results: dict[str, dict[str, "Tensor"]]) -> tuple[list[str], bool]:
    """Compare every result with the first; return the lines to print and whether all agree.

    Args:
        results: by 'engine on device', the tensors of `run_sample`.
    """
    lines, agree = [], True
    first, *others = results or [""]
    for other in others:
        apart, worst = max(
            (_distance(results[other][name], value), name) for name, value in results[first].items()
        )
        if apart <= TOLERANCE:
            verdict = f"equal to {first} within {apart:.0e}, ok"
        else:
            verdict = f"must equal {first} within {TOLERANCE:.0e}, got {apart:.0e} in the {worst}"
            agree = False
        lines.append(f"engine       {other}: {verdict}")
    return lines, agree


def _distance(some: "Tensor", other: "Tensor") -> float:
    """Return the largest difference over the largest value; infinite where shapes differ or NaN."""
    if some.shape != other.shape:
        return float("inf")
    apart = ((some - other).abs().max() / other.abs().max()).item()
    return apart if apart == apart else float("inf")


def _sources() -> list[str]:
    lines = []
    for name in SOURCES:
        problem = SOURCES.problem(name)
        if problem is None and hasattr(module := SOURCES.load(name), "missing"):
            problem = module.missing(module.Config())
        lines.append(f"superpixels  {name}: {problem or 'usable'}")
    return lines


def _required(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"environment: package '{error.name}' is not installed; run 'make env'"
        ) from error


def _blas_and_gpu() -> list[str]:
    torch, threadpool_info = _required("torch"), _required("threadpoolctl").threadpool_info
    pools = {(i["internal_api"], i["num_threads"]) for i in threadpool_info()}
    blas = ", ".join(f"{api} ({threads} threads)" for api, threads in sorted(pools))
    gpu = "none, everything runs on the CPU"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        gpu = f"CUDA {torch.version.cuda}: {', '.join(names)}"
    has_mkl = torch.backends.mkl.is_available()
    return [
        f"blas         torch {'with' if has_mkl else 'without'} MKL; {blas}",
        f"gpu          {gpu}",
    ]

"""What is installed here and what is not: versions, engine, superpixel sources, BLAS, GPU."""

import importlib.metadata
import os
import platform
import subprocess
import sys

from pipeline.errors import UserError
from pipeline.superpixels.table import SOURCES

PACKAGES = ("torch", "numpy", "numba", "zarr", "dask", "pyarrow", "scikit-image", "fast-hdbscan")


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
    """Run one convolution forward and backward per engine, each in a process of its own."""
    lines, usable = [], False
    for name in ("minkowski", "native"):
        code = f"from train.engines.{name} import self_check; print(self_check())"
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            env=environment,
        )
        if done.returncode == 0:
            usable = True
            lines.append(f"engine       {name}: {done.stdout.strip().splitlines()[-1]}")
        else:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            lines.append(f"engine       {name}: not usable ({last})")
    return lines, usable


def _sources() -> list[str]:
    lines = []
    for name in SOURCES:
        problem = SOURCES.problem(name)
        if problem is None and hasattr(module := SOURCES.load(name), "missing"):
            problem = module.missing(module.Config())
        lines.append(f"superpixels  {name}: {problem or 'usable'}")
    return lines


def _blas_and_gpu() -> list[str]:
    try:
        import torch
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError as error:
        raise UserError(
            f"environment: package '{error.name}' is not installed; run 'make env'"
        ) from error
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

"""Print what MinkowskiEngine is compiled with and for, `13.0 8.0;9.0`, or one line on what fails.

    python environment/cuda_facts.py CUDA_HOME        # the toolkit's folder, '' = none found

The GPUs are those that the driver's nvidia-smi lists, else those that torch sees, unless
TORCH_CUDA_ARCH_LIST names others. nvcc must be of torch's own CUDA major version.
"""

import os
import re
import subprocess
import sys
from pathlib import Path


def capabilities() -> list[str]:
    """Return the compute capability of every GPU here, '9.0'; none without a driver."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is not None and done.returncode == 0:
        found = re.findall(r"^\s*(\d+\.\d+)\s*$", done.stdout, re.MULTILINE)
        if found:
            return found
    import torch

    each = (torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
    return [f"{major}.{minor}" for major, minor in each]


def nvcc_says(cuda_home: str, option: str) -> str:
    """Return what the toolkit's nvcc prints.

    Raises:
        ValueError: there is no nvcc, or it fails.
    """
    nvcc = Path(cuda_home or "none") / "bin" / "nvcc"
    if not nvcc.is_file():
        raise ValueError(
            f"CUDA_HOME must be a CUDA toolkit with bin/nvcc, got '{cuda_home}'; install the "
            "toolkit of torch's CUDA version, or run 'make env ENGINE=native'"
        )
    done = subprocess.run([str(nvcc), option], capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(
            f"{nvcc} must run, got '{done.stderr.strip()[:200]}'; reinstall the toolkit"
        )
    return done.stdout


def arch_list(wanted: str, present: list[str], known: str) -> str:
    """Return the compute capabilities to compile for, 'a;b', rising.

    Args:
        wanted: TORCH_CUDA_ARCH_LIST, '' = those present.
        present: one entry for each GPU.
        known: what `nvcc --list-gpu-arch` prints.

    Raises:
        ValueError: no GPU, or one that this nvcc does not compile for.
    """
    if wanted:
        return ";".join(re.split(r"[;,\s]+", wanted.strip()))
    if not present:
        raise ValueError(
            "GPU must be visible to nvidia-smi or torch, got none; set "
            'TORCH_CUDA_ARCH_LIST="9.0" to compile for a GPU elsewhere'
        )
    numbers = set(re.findall(r"compute_(\d+)\b", known))
    for each in present:
        if each.replace(".", "") not in numbers:
            raise ValueError(
                f"GPU of compute capability {each} must be one that nvcc compiles for "
                f"({', '.join(sorted(numbers, key=int))}), it is not; take another CUDA version"
            )
    return ";".join(sorted(set(present), key=float))


def check_versions(nvcc: str, torch_cuda: str | None) -> None:
    """Refuse an nvcc of another CUDA major version than torch's.

    Raises:
        ValueError: they differ, torch has no CUDA, or CUDA is neither 12 nor 13.
    """
    if torch_cuda is None:
        raise ValueError(
            "torch must be built with CUDA, got a CPU-only one; install torch 2.13.0 for CUDA "
            "into the environment first, or run 'make env ENGINE=native'"
        )
    majors = nvcc.split(".")[0], torch_cuda.split(".")[0]
    if majors[0] not in ("12", "13") or majors[0] != majors[1]:
        raise ValueError(
            f"nvcc must be of CUDA 12 or 13 and of torch's ({torch_cuda}), got {nvcc}; set "
            "CUDA_HOME to that toolkit, or install the torch of this one"
        )


def main(cuda_home: str) -> str:
    """Return the line to print."""
    release = re.search(r"release (\d+\.\d+)", nvcc_says(cuda_home, "--version"))
    if release is None:
        raise ValueError(f"{cuda_home}/bin/nvcc must print its release, got none; reinstall it")
    import torch

    check_versions(release[1], torch.version.cuda)
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    known = nvcc_says(cuda_home, "--list-gpu-arch")
    return f"{release[1]} {arch_list(wanted, [] if wanted else capabilities(), known)}"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1] if len(sys.argv) > 1 else ""))
    except ValueError as error:
        sys.exit(f"environment: {error}")

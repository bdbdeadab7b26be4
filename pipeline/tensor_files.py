"""Files of model weights: found tensors, a hash, what does not fit, and the device to run on.

What all model-based superpixel sources share. Files are read as tensors alone, never as code.
"""

import functools
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import UserError, check
from pipeline.files import sha256_file

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
_SHOWN = 3  # names per kind of trouble in a message


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name.

    Args:
        path: .safetensors, or what torch.load reads as tensors alone; a flat dict of tensors.

    Raises:
        UserError: no such file, a damaged one, or it holds other things than tensors.
    """
    check(path.is_file(), f"{path}: checkpoint must exist, got no such file; give another path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # mapped: who only looks at names and shapes does not read a gigabyte
        mapped = zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises a dozen kinds for a file that is none, and its text
        kind = type(error)  # advises to run what is in it
        raise UserError(
            f"{path}: checkpoint must be a file of tensors, got {kind.__module__}.{kind.__name__} "
            "on reading it; get it again"
        ) from error
    flat = isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())
    check(flat, f"{path}: checkpoint must be a flat dict of tensors, got other things; "
          "give the published file")  # fmt: skip
    return state


def mismatch(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Return what is missing, has another shape or is unexpected in a file, '' where all fits."""
    both = sorted(wanted.keys() & found.keys())
    shapes = [
        f"{key} {list(found[key].shape)} for {list(wanted[key].shape)}"
        for key in both
        if wanted[key].shape != found[key].shape
    ]
    trouble = {
        "missing": sorted(wanted.keys() - found.keys()),
        "of another shape": shapes,
        "unexpected": sorted(found.keys() - wanted.keys()),
    }
    return "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)})"
        for kind, names in trouble.items()
        if names
    )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, computed once per process and version of the file."""
    stat = path.stat()
    return _hash(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _hash(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_file(path)


def torch_device(name: str) -> torch.device:
    """Return the device of that name.

    Raises:
        UserError: this machine has none.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--device: must be a device of this machine, got '{name}' ({reason}); use cpu"
        ) from error

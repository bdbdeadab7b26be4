"""Checkpoints: tensors and plain Python only, written whole or not at all, loaded weights-only."""

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config import differences
from pipeline.errors import UserError, check
from pipeline.files import write_atomically

FORMAT = 1


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: file to make or replace.
        content: tensors, state dicts, numbers, strings, lists and dicts of those.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, *keys: str) -> dict[str, Any]:
    """Return a checkpoint's content on the CPU.

    Args:
        path: file.
        keys: what it must hold; a pretraining's and a probe's hold different things.

    Raises:
        UserError: missing, broken, not one of ours, or one of another kind.
    """
    check(path.is_file(), f"{path}: checkpoint must exist, got nothing; run 'make pretrain' first")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch.load itself compares no checksum
                raise ValueError(damaged)
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content["format"]
    except Exception as error:  # torch raises many kinds for a broken zip or pickle
        raise UserError(
            f"{path}: must be a Selkie checkpoint, got {type(error).__name__}; train again or "
            "give another file"
        ) from error
    check(found == FORMAT, f"{path}: checkpoint format must be {FORMAT}, got {found}; train again")
    missing = [key for key in keys if key not in content]
    check(
        not missing,
        f"{path}: checkpoint must hold {', '.join(keys)}, got {', '.join(content)}; "
        "give one that 'make pretrain' made",
    )
    return content


def load_into(module: nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    """Load a state dict whose keys and shapes must be the module's.

    Raises:
        UserError: a checkpoint of another network; says how many keys differ, lists them on
            standard error.
    """
    wanted = {key: list(value.shape) for key, value in module.state_dict().items()}
    found = {key: list(value.shape) for key, value in state.items()}
    wrong = differences(found, wanted)
    if wrong:
        print("\n".join([f"{where}: key: in the file -> in the network", *wrong]), file=sys.stderr)
        raise UserError(
            f"{where}: must fit this network, got one with {len(wrong)} other keys or shapes "
            f"(first '{wrong[0]}'); give the recipe it was made with"
        )
    module.load_state_dict(state)

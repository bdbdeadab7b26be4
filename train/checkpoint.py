"""Checkpoints: tensors and plain Python only, written whole or not at all, loaded weights-only."""

import io
import os
import shutil
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
KEPT = 3  # a run's checkpoint.pt, and the two before it: checkpoint-1.pt, checkpoint-2.pt


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: file to make or replace.
        content: tensors, state dicts, numbers, strings, lists and dicts of those.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_atomically(path, buffer.getvalue())


def save_in_turn(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint as `save_checkpoint`; the one that stood there becomes the one before.

    `path` itself stands whole at every moment: the old file gets a second name before the new one
    takes its first.
    """
    for number in range(KEPT - 1, 1, -1):
        if (newer := before(path, number - 1)).exists():
            os.replace(newer, before(path, number))
    if path.exists():
        try:
            os.link(path, before(path, 1))
        except OSError:  # a file system without hard links
            shutil.copyfile(path, before(path, 1))
    save_checkpoint(path, content)


def before(path: Path, number: int) -> Path:
    """Return the name of a checkpoint that is `number` older than `path`."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}") if number else path


def load_latest(path: Path, *keys: str) -> tuple[dict[str, Any], Path] | None:
    """Return the newest checkpoint that can be read, and its path; None where there is none.

    One that cannot is named on standard error, and the one before is taken.

    Raises:
        UserError: none of those that stand can be read; says so of the newest.
    """
    standing = [p for p in (before(path, number) for number in range(KEPT)) if p.exists()]
    problems: list[UserError] = []
    for candidate in standing:
        try:
            content = load_checkpoint(candidate, *keys)
        except UserError as error:
            problems.append(error)
            continue
        for problem in problems:
            print(f"{problem}\n{candidate}: going on from this one instead", file=sys.stderr)
        return content, candidate
    if problems:
        raise problems[0]
    return None


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

"""Where tensors live: a name that the user gave, checked before anything is read or written."""

import torch

from pipeline.errors import UserError


def check_device(name: str) -> str:
    """Return the name of a torch device of this machine.

    Raises:
        UserError: this machine has none of that name.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--device: must be a device of this machine, got '{name}' ({reason[:80]}); use cpu"
        ) from error
    return name

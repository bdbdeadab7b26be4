"""Number formats of the two branches; losses are float32 whatever these say.

In: a recipe's choice. Out: autocast contexts and the gradient scaler that float16 needs.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from pipeline.errors import check

Format = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Precision:
    """Autocast per branch; bfloat16 needs compute capability 8.0 on GPUs."""

    images: Format = "float32"  # frozen teacher and head K
    points: Format = "float32"  # the 3D network and head Q


def autocast(device_type: str, name: Format) -> torch.autocast:
    """Return the context in which a branch runs."""
    dtype = torch.bfloat16 if name == "float32" else getattr(torch, name)
    return torch.autocast(device_type, dtype=dtype, enabled=name != "float32")


def check_precision(precision: Precision, engine: str) -> None:
    """Refuse what the engine cannot compute.

    Raises:
        UserError: half precision of the network on MinkowskiEngine, which knows float32 alone.
    """
    check(
        precision.points == "float32" or engine == "native",
        f"precision.points: must be float32 with the engine {engine}, got {precision.points}; "
        "use ENGINE=native",
    )


def make_scaler(precision: Precision, device_type: str) -> torch.amp.GradScaler:
    """Return the scaler of the loss; it does nothing unless a branch runs in float16."""
    return torch.amp.GradScaler(
        device_type, enabled="float16" in (precision.images, precision.points)
    )

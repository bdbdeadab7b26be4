"""Teacher weights as their authors publish them, into our networks, strictly.

In: a file and a network. Out: the network, filled. Files differ in what they wrap the encoder in
and in what stands beside it; the encoder's own keys are alike. A file that fits one rule and lacks
a key, or has one too many, is refused, never half loaded.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import UserError, check

# keys under which files keep a state dict: MoCo, SimSiam, DenseCL | PixPro | OBoW | DINO in full
CONTAINERS = ("state_dict", "model", "network", "teacher")
# what stands before the encoder's keys, the longest first; all else is then another network's
PREFIXES = (
    "module.encoder_q.",  # MoCo v1 and v2, with the momentum encoder and a queue beside it
    "module.base_encoder.",  # MoCo v3
    "module.encoder.",  # SimSiam, PixPro
    "module.backbone.",  # DINO's full checkpoints
    "backbone.",
    "module.",  # SwAV, DeepCluster v2
    "",  # torchvision, timm, DINO, DINOv2, Barlow Twins, VICReg; our own
)
# what sits on an encoder and is not used: classifiers, projection heads, a token for masking
UNUSED = ("fc.", "head.", "projection_head.", "prototypes.", "mask_token")
COUNTER = ".num_batches_tracked"  # absent from files of before 2018, without effect in eval mode


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill a network from a published checkpoint, or from ours (.safetensors).

    Args:
        network: filled in place, or left as it was.
        path: file.

    Raises:
        UserError: no such file, one that is not of tensors, or keys or shapes of another network.
    """
    check(path.is_file(), f"{path}: teacher weights must exist, got nothing; give another path")
    own = network.state_dict()
    state = _encoder(_read(path), own)
    counters = {key: value for key, value in own.items() if key.endswith(COUNTER)}
    state = {**counters, **state}
    wanted = {key: list(value.shape) for key, value in own.items()}
    found = {key: list(value.shape) for key, value in state.items()}
    wrong = [key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)]
    if wrong:
        key = min(wrong)
        raise UserError(
            f"{path}: {key} must be {wanted.get(key, 'absent')}, got {found.get(key, 'nothing')} "
            f"({len(wrong)} keys differ); give weights of this teacher.kind, "
            f"a {type(network).__name__}"
        )
    network.load_state_dict(state)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # DINO keeps its options
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds for a broken file
        raise UserError(
            f"{path}: teacher weights must be a file of tensors, got {type(error).__name__}; "
            "give the published file, or only its state dict"
        ) from error
    check(
        isinstance(content, Mapping),
        f"{path}: teacher weights must be named tensors, got a {type(content).__name__}; "
        "give a state dict",
    )
    return content


def _encoder(content: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors by their bare names."""
    while inner := next(
        (content[k] for k in CONTAINERS if isinstance(content.get(k), Mapping)), None
    ):
        content = inner
    prefix = next((p for p in PREFIXES if any(p + key in content for key in own)), "")
    state = {
        key.removeprefix(prefix): value for key, value in content.items() if key.startswith(prefix)
    }
    return {k: v for k, v in state.items() if not k.startswith(UNUSED) and isinstance(v, Tensor)}

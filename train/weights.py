"""Pretrained 3D networks in files: ours, SLidR's and its descendants', and plain safetensors.

In: a file. Out: the network's tensors, its shape read from them, and what is known of its making.
Ours carry a recipe; SLidR's, ST-SLidR's and Seal's carry a training config or nothing, and then the
published voxels are assumed (method.md 3.2).
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.config import differences, override, to_plain
from pipeline.errors import UserError, check
from pipeline.files import sha256
from train.checkpoint import load_checkpoint
from train.models.minkunet import minkunet
from train.recipes import Network
from train.voxelize import VoxelConfig

C = TypeVar("C")
HEAD = "image_head."  # what stands before head K's keys in a safetensors file
CARD_FORMAT = 1
# where published files keep the 3D network: SLidR, ST-SLidR model.pt | Seal, Lightning checkpoints
CONTAINERS = ("model_points", "state_dict")
PREFIXES = ("model_points.", "module.", "")


@dataclass(frozen=True)
class Weights:
    """A pretrained network, and head K where the file has it."""

    network: Network
    voxels: VoxelConfig
    init: str  # '<recipe>[/<superpixel source, if one was read>]', or '<file>/published'
    epochs: int  # of pretraining; 0 = not known
    state: dict[str, Tensor]  # SLidR's names, method.md 3.1
    head: dict[str, Tensor]  # of train.models.image_teacher.ImageHead; empty = none
    facts: dict[str, Any] = field(default_factory=dict)  # our own runs', see train.trainer

    @property
    def intensity(self) -> str:
        """How the network was fed, see train.stores.StorePaths."""
        return self.facts.get("intensity", "slidr")


def read_weights(path: Path) -> Weights:
    """Return the network of a file of any kind that we know.

    Args:
        path: our checkpoint, our safetensors with its card, SLidR's model.pt or a file made like
            it, or a dict with `state_dict`.

    Raises:
        UserError: none of these, or tensors that are no whole MinkUNet; what does not match is
            listed on standard error.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = _peek(path)
    found = next((content[k] for k in CONTAINERS if isinstance(content.get(k), Mapping)), None)
    if found is None:
        return _read_own(path)
    prefix = next(p for p in PREFIXES if p == "" or any(key.startswith(p) for key in found))
    state = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    images = content.get("model_images") or {}
    head = {
        f"project.{name}": images[f"decoder.0.{name}"]
        for name in ("weight", "bias")
        if f"decoder.0.{name}" in images
    }
    config = content.get("config")
    config = config if isinstance(config, Mapping) else {}
    facts = json.loads(config.get("selkie", "{}"))
    if facts:  # SLidR's config has no place for all of our grid
        voxels = rebuild(VoxelConfig(), facts["recipe"]["voxels"], path)
    else:
        kind = "cylindrical" if config.get("cylindrical_coordinates", True) else "cartesian"
        voxels = VoxelConfig(kind, float(config.get("voxel_size", 0.1)))
    network = infer_network(state, path)
    init = _init_of(facts) or f"{path.stem}/published"
    epochs = content.get("epoch")
    epochs = epochs if isinstance(epochs, int) else 0
    return Weights(network, voxels, init, epochs, state, head, facts)


def infer_network(state: Mapping[str, Tensor], path: Path) -> Network:
    """Return the shape of a MinkUNet from its tensors.

    Raises:
        UserError: tensors are missing, left over or of another shape than the network they form.
    """
    try:
        widths = [state["conv0p1s1.kernel"].shape[2]]
        widths += [state[f"block{i}.0.conv1.kernel"].shape[2] for i in range(1, 9)]
        inputs, outputs = state["conv0p1s1.kernel"].shape[1], state["final.kernel"].shape[-1]
    except (KeyError, IndexError) as error:
        raise UserError(
            f"{path}: must hold a MinkUNet as SLidR names it (conv0p1s1.kernel, block1.0.conv1."
            f"kernel, .., final.kernel), got {', '.join(list(state)[:3]) or 'nothing'}, ..; give a "
            "file made with MinkowskiEngine, or one of ours"
        ) from error
    check(
        inputs == 1,
        f"{path}: the network must take 1 feature per voxel (intensity), got {inputs}; such "
        "checkpoints (xyz and intensity, as SuperFlow's) cannot be fed from our stores",
    )
    blocks = [[k.split(".")[1] for k in state if k.startswith(f"block{i}.")] for i in range(1, 9)]
    depths = [len(set(names)) for names in blocks]
    network = Network(tuple(widths), tuple(depths), inputs, out_channels=outputs)
    check_fits(state, network, path)
    return network


def check_fits(state: Mapping[str, Tensor], network: Network, where: Path) -> None:
    """Check that tensors are exactly a network's; list what differs on standard error.

    Raises:
        UserError: a key or a shape differs.
    """
    with torch.device("meta"):
        own = minkunet(
            network.in_channels,
            network.out_channels,
            widths=network.widths,
            depths=network.depths,
            engine="native",
        )
    wanted = {key: list(value.shape) for key, value in own.state_dict().items()}
    wrong = differences({key: list(value.shape) for key, value in state.items()}, wanted)
    if wrong:
        print("\n".join([f"{where}: key: in the file -> in the network", *wrong]), file=sys.stderr)
        raise UserError(
            f"{where}: must be a whole MinkUNet, got one with {len(wrong)} other keys or shapes "
            f"(first '{wrong[0]}'); give another file"
        )


def rebuild(config: C, plain: dict[str, Any], path: Path) -> C:
    """Return a config dataclass from its plain form in a file.

    Raises:
        UserError: it has keys or values that this code does not know.
    """
    try:
        return override(config, assignments(plain))
    except UserError as error:
        raise UserError(
            f"{path}: checkpoint must hold settings that this code knows, got {error}; train again"
        ) from error


def assignments(plain: dict[str, Any]) -> list[str]:
    """Return plain fields as the 'key=value' lines that override takes."""
    return [
        f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in plain.items()
    ]


def card_of(weights: Weights, tensors: bytes) -> dict[str, Any]:
    """Return the JSON card of a safetensors file: what reading it back needs, and its hash."""
    return {
        "format": CARD_FORMAT,
        "sha256": sha256(tensors),
        "network": to_plain(weights.network),
        "voxels": to_plain(weights.voxels),
        "init": weights.init,
        "epochs": weights.epochs,
        "facts": weights.facts,
    }


def card_path(path: Path) -> Path:
    """Return where the card of a safetensors file is."""
    return path.with_suffix(".json")


def _read_safetensors(path: Path) -> Weights:
    card_file = card_path(path)
    for file in (path, card_file):
        check(
            file.is_file(),
            f"{file}: must exist, got nothing; weights are two files, .safetensors and .json",
        )
    try:
        card, tensors = json.loads(card_file.read_text()), load_file(path)
        known = {name: card[name] for name in ("format", "sha256", "init", "epochs", "facts")}
        plain_network, plain_voxels = card["network"], card["voxels"]
    except Exception as error:  # safetensors has an error class of its own
        raise UserError(
            f"{path}: must be weights and a card that 'python -m train convert' made, got "
            f"{type(error).__name__}; convert again"
        ) from error
    check(
        known["format"] == CARD_FORMAT,
        f"{card_file}: format must be {CARD_FORMAT}, got {known['format']}; convert again",
    )
    check(
        known["sha256"] == sha256(path.read_bytes()),
        f"{path}: must be the file of its card, got other bytes; fetch both again",
    )
    network = rebuild(Network(), plain_network, card_file)
    voxels = rebuild(VoxelConfig(), plain_voxels, card_file)
    state = {key: value for key, value in tensors.items() if not key.startswith(HEAD)}
    head = {k.removeprefix(HEAD): v for k, v in tensors.items() if k.startswith(HEAD)}
    check_fits(state, network, path)
    return Weights(network, voxels, known["init"], known["epochs"], state, head, known["facts"])


def _read_own(path: Path) -> Weights:
    content = load_checkpoint(path, "network", "facts", "next_epoch")
    facts = content["facts"]
    network = rebuild(Network(), facts["recipe"]["network"], path)
    voxels = rebuild(VoxelConfig(), facts["recipe"]["voxels"], path)
    head = content.get("head", {})
    epochs = content["next_epoch"]
    return Weights(network, voxels, _init_of(facts), epochs, content["network"], head, facts)


def _peek(path: Path) -> Mapping[str, Any]:
    """Return a torch file's content; nothing where it is none, which `_read_own` explains."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds
        return {}
    return content if isinstance(content, Mapping) else {}


def _init_of(facts: dict[str, Any]) -> str:
    return "/".join(filter(None, (facts["recipe"]["name"], facts["source"]))) if facts else ""

"""The class vectors of a checkpoint, computed once per machine and kept on disk.

134 classes in 81 sentences each take minutes on a CPU and never change: the file is named by a hash
of the text encoder's weights, the classes and the sentences.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import click
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline.files import write_atomically
from pipeline.xdecoder.class_names import prompts
from pipeline.xdecoder.text import LanguageEncoder, class_vectors
from pipeline.xdecoder.tokenizer import Tokenizer

VERSION = 1  # of the computation


def cache_folder() -> Path:
    """Return where the files lie: `selkie/class_vectors` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "selkie" / "class_vectors"


def cached_class_vectors(
    encoder: LanguageEncoder, tokenizer: Tokenizer, names: Sequence[str]
) -> Tensor:
    """Return the class vectors [K, P] float32, from the cache where they are there and sound.

    Arguments as `text.class_vectors`.
    """
    path = cache_folder() / f"{cache_key(encoder, names)}.safetensors"
    if path.is_file():
        try:
            return safetensors.torch.load_file(path)["classes"]
        except (SafetensorError, KeyError):
            click.echo(f"{path}: damaged, made again", err=True)
    click.echo(f"class names to vectors, once per checkpoint: {path}", err=True)
    classes = class_vectors(encoder, tokenizer, names)
    write_atomically(path, safetensors.torch.save({"classes": classes}))
    return classes


def cache_key(encoder: LanguageEncoder, names: Sequence[str]) -> str:
    """Return a hash of everything the vectors depend on, and of the kind of device."""
    kind = encoder.lang_proj.device.type
    digest = hashlib.sha256(f"{VERSION} {kind} {[prompts(name) for name in names]}".encode())
    for key, value in sorted(encoder.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)}".encode())
        digest.update(memoryview(value.cpu().contiguous().numpy()).cast("B"))
    return digest.hexdigest()[:32]

"""From names on the command line to an open store and the job that fills it."""

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import segments
from pipeline.config import config_hash, override, to_plain
from pipeline.errors import UserError, unknown_name
from pipeline.graph import STAGES, stage_arrays
from pipeline.index import Index
from pipeline.manifest import Manifest
from pipeline.schema import Capacity
from pipeline.store import Header, Store, open_or_create
from pipeline.superpixels.table import SOURCES
from pipeline.worker import Job

SLICE_BYTES = 256 * 2**20  # largest slice of one array that a block may hold in memory


@dataclass(frozen=True)
class NoConfig:
    """The stages frames and projections have no settings."""


@dataclass(frozen=True)
class Place:
    """Where a data set's recordings and stores are."""

    manifest: Manifest
    root: Path | None  # None where a command reads only stores
    version: str | None
    folder: Path  # `<stores>/<dataset>[-<version>]`


@dataclass(frozen=True)
class StageName:
    """'segments', or 'segments@n5' for a second store with other settings beside the first."""

    stage: str
    label: str = ""

    @staticmethod
    def parse(text: str) -> "StageName":
        """Split 'stage@label'.

        Raises:
            UserError: unknown stage.
        """
        stage, _, label = text.partition("@")
        check_label(text, label)
        if stage not in STAGES:
            raise unknown_name("stage", stage, STAGES)
        return StageName(stage, label)


def check_label(text: str, label: str) -> None:
    """Refuse a label that is no plain file name.

    Raises:
        UserError: it has other characters than letters, digits, '.', '_', '-'.
    """
    if "@" in text and not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", label):
        raise UserError(
            f"'{text}': label must be letters, digits, '.', '_' or '-', got '{label}'; "
            "for example slic@few"
        )


def store_name(name: StageName, source: str) -> str:
    """Return the file name of a stage's store, e.g. 'superpixels-sam@vit_b.zarr'."""
    middle = f"-{source}" if name.stage == "superpixels" else ""
    label = f"@{name.label}" if name.label else ""
    return f"{name.stage}{middle}{label}.zarr"


def prepare(
    name: StageName,
    source: str,
    place: Place,
    index: Index,
    settings: tuple[str, ...] = (),
    rebuild: bool = False,
    device: str = "cpu",
    dry_run: bool = False,
) -> tuple[Job, Store | None]:
    """Open (or make) a stage's store and return it with the job that computes its blocks.

    Args:
        name: which stage.
        source: superpixel source, possibly 'slic@label'; only used by stage superpixels.
        place: the data set's recordings and stores.
        index: its index.
        settings: 'key=value' overrides of the stage's config.
        rebuild: replace a store of other settings.
        device: torch device of model-based sources.
        dry_run: make and replace nothing; a store that is missing comes back as None.

    Raises:
        UserError: unknown stage, source or key, or a store of other settings.
    """
    stage, size = STAGES[name.stage], index.capacity()
    check_label(source, source.partition("@")[2])
    if name.stage == "superpixels" and not size.num_cameras:
        raise UserError(
            f"data set '{place.manifest.name}': stage superpixels needs cameras, got none; "
            "use this data set for probing and fine-tuning"
        )
    source_name = source.partition("@")[0]
    config, stored, version, categories = _stage_config(name, source_name, place.root, settings)
    arrays = stage_arrays(name.stage, size, index.has_instances, categories)
    header = Header(
        dataset=place.manifest.name,
        stage=name.stage,
        stage_version=version,
        config=stored,
        config_hash=config_hash(stored),
        capacity=size,
        frames_per_block=_block_frames(stage.frames_per_block, arrays),
    )
    path = place.folder / store_name(name, source)
    attributes = _attributes(name.stage, place.manifest, index)
    if dry_run and not path.exists():
        store = None
    else:
        store = open_or_create(path, header, arrays, attributes, rebuild and not dry_run)
    job = Job(
        stage=name.stage,
        dataset=place.manifest.name,
        root=place.root,
        index_path=place.folder / "index.parquet",
        store_path=path,
        source_name=source_name,
        config=config,
        arrays=tuple(arrays),
        store_id=store.attributes["store_id"] if store else "",
        device=device,
    )
    return job, store


def _stage_config(
    name: StageName, source: str, root: Path, settings: tuple[str, ...]
) -> tuple[Any, dict[str, Any], int, int]:
    """Return config, the part of it that the store records, version and number of categories."""
    version, categories, machine_fields = STAGES[name.stage].version, 0, ()
    config: Any = NoConfig()
    if name.stage == "superpixels":
        module = SOURCES.load(source)
        config = module.Config()
        version, categories = version * 100 + module.VERSION, module.MAX_CATEGORIES
        machine_fields = getattr(module, "MACHINE_FIELDS", ())
        if source == "oracle":
            config = dataclasses.replace(config, folder=str(root / "oracle"))
    elif name.stage == "segments":
        config = segments.Config()
        version = version * 100 + segments.VERSION
    config = override(config, settings)
    if name.stage == "superpixels" and hasattr(module, "check_config"):
        module.check_config(config)
    stored = {"source": source} if name.stage == "superpixels" else {}
    stored |= {k: v for k, v in to_plain(config).items() if k not in machine_fields}
    return config, stored, version, categories


def _attributes(stage: str, manifest: Manifest, index: Index) -> dict[str, Any]:
    """Return what readers of the store need and the recordings would otherwise have to tell."""
    attributes: dict[str, Any] = {
        "cameras": list(index.cameras),
        "store_scale": index.store_scale,
    }
    if stage == "frames":
        attributes |= {
            "scenes": index.scenes(),
            "classes": list(manifest.classes),
            "colors": {name: list(color) for name, color in manifest.colors.items()},
            "raw_to_train": {str(raw): train for raw, train in manifest.raw_to_train.items()},
            "label_map_hash": manifest.label_map_hash(),
            "num_rings": manifest.num_rings,
            "intensity_max": manifest.intensity_max,
            "intensity_offset": manifest.intensity_offset,
            "few_shot": manifest.few_shot,
            "metric": manifest.metric,
        }
    return attributes


def _block_frames(wanted: int, arrays: list) -> int:
    """Return frames per block: the wanted number, halved until no slice passes 256 MB."""
    largest = max(_frame_bytes(spec) for spec in arrays)
    while wanted > 1 and wanted * largest > SLICE_BYTES:
        wanted //= 2
    return wanted


def _frame_bytes(spec: Any) -> int:
    return math.prod(spec.frame_shape) * np.dtype(spec.dtype).itemsize


def describe_capacity(size: Capacity) -> str:
    """Return the capacities in one line."""
    return (
        f"{size.num_frames} frames, {size.num_cameras} cameras of at most {size.height} x "
        f"{size.width}, at most {size.num_points} points"
    )

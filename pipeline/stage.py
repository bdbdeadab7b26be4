"""From names on the command line to an open store and the job that fills it."""

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import segments
from pipeline.config import config_hash, override, to_plain
from pipeline.errors import UserError, unknown_name
from pipeline.graph import STAGES, stage_arrays
from pipeline.index import Index
from pipeline.job import Job, Limits
from pipeline.making import larger, open_or_create, open_same
from pipeline.manifest import Manifest
from pipeline.schema import ArraySpec, Capacity
from pipeline.store import Header, Store, open_store
from pipeline.superpixels.table import SOURCES
from pipeline.taxonomy import Taxonomy

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
    limits: Limits | None = None,
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
        limits: of a frame's time, tries and memory.
        dry_run: make and replace nothing; a store that is missing comes back as None.

    Raises:
        UserError: unknown stage, source or key, or a store of other settings.
    """
    path = place.folder / store_name(name, source)
    size = _room(path, index)
    check_label(source, source.partition("@")[2])
    if reason := why_not(name.stage, index):
        raise UserError(f"data set '{place.manifest.name}': stage {name.stage} {reason}")
    source_name = source.partition("@")[0]
    config, stored, version, categories = _stage_config(name, source_name, place, settings)
    arrays = stage_arrays(name.stage, size, index.has_instances, categories)
    header = Header(
        dataset=place.manifest.name,
        stage=name.stage,
        stage_version=version,
        config=stored,
        config_hash=config_hash(stored),
        capacity=size,
        frames_per_block=block_frames(name.stage, arrays),
    )
    attributes = _attributes(name.stage, place.manifest, index)
    if dry_run:
        store = open_same(path, header, attributes, rebuild)
    else:
        store = open_or_create(path, header, arrays, attributes, rebuild)
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
        limits=limits or Limits(),
    )
    return job, store


def _room(path: Path, index: Index) -> Capacity:
    """Return the sizes that the store must have: those of the index, or what it has room for.

    A store never shrinks: a scan that was replaced by a smaller one leaves it as it is.
    """
    size = index.capacity()
    try:
        room = larger(open_store(path).header.capacity, size)
    except UserError:  # none there, or one that cannot be read; making.py says what to do
        return size
    return dataclasses.replace(room, num_frames=size.num_frames, num_cameras=size.num_cameras)


def check_settings(
    names: Sequence[StageName], source: str, place: Place, settings: tuple[str, ...]
) -> None:
    """Check every stage's settings and the files they name before the first store is made.

    Raises:
        UserError: unknown source or key, or a file that a source needs is not there.
    """
    for name in names:
        _stage_config(name, source.partition("@")[0], place, settings)


def why_not(stage: str, index: Index) -> str:
    """Return why a stage cannot run on a data set, '' where it can."""
    if stage in ("superpixels", "projections") and not index.cameras:
        return "needs cameras, got none; use this data set for probing and fine-tuning"
    if stage == "segments" and not index.has_pairs:
        return "needs pairs of frames with poses, got none; use this data set without segments"
    return ""


def usable_stages(names: list[StageName], index: Index) -> tuple[list[StageName], list[str]]:
    """Return the stages that a data set can run, and one line per one that it cannot."""
    reasons = {name: why_not(name.stage, index) for name in names}
    lines = [f"stage {name.stage} left out: it {why}" for name, why in reasons.items() if why]
    return [name for name in names if not reasons[name]], lines


def _stage_config(
    name: StageName, source: str, place: Place, settings: tuple[str, ...]
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
            config = dataclasses.replace(config, folder=str(place.root / "oracle"))
    elif name.stage == "segments":
        config = segments.Config()
        version = version * 100 + segments.VERSION
    config = override(config, settings)
    if name.stage == "superpixels" and hasattr(module, "for_dataset"):
        config = module.for_dataset(config, place.manifest.name)
    if name.stage == "superpixels" and hasattr(module, "check_config"):
        module.check_config(config)
    stored = {"source": source} if name.stage == "superpixels" else {}
    stored |= {k: v for k, v in to_plain(config).items() if k not in machine_fields}
    if name.stage == "superpixels" and hasattr(module, "identify"):
        stored |= module.identify(config)
    return config, stored, version, categories


def _attributes(stage: str, manifest: Manifest, index: Index) -> dict[str, Any]:
    """Return what readers of the store need and the recordings would otherwise have to tell."""
    attributes: dict[str, Any] = {
        "cameras": list(index.cameras),
        "store_scale": index.store_scale,
    }
    if stage == "frames":
        manifest = manifest.for_version(index.version)
        attributes |= _plain(manifest.taxonomy()) | {
            "scenes": index.scenes(),
            "num_rings": manifest.num_rings,
            "intensity_max": manifest.intensity_max,
            "intensity_offset": manifest.intensity_offset,
            "intensity_squash": manifest.intensity_squash,
            "taxonomies": {name: _plain(t) for name, t in manifest.taxonomies.items()},
            "few_shot": manifest.few_shot,
            "metric": manifest.metric,
        }
    return attributes


def _plain(taxonomy: Taxonomy) -> dict[str, Any]:
    """Return what readers of a store need of a taxonomy, under the names of the default's."""
    return {
        "classes": list(taxonomy.classes),
        "colors": {name: list(color) for name, color in taxonomy.colors.items()},
        "raw_to_train": {str(raw): train for raw, train in taxonomy.raw_to_train.items()},
        "label_map_hash": taxonomy.content_hash(),
    }


def block_frames(stage: str, arrays: Sequence[ArraySpec]) -> int:
    """Return a stage's frames per block: what it wants, halved until no slice passes 256 MB."""
    wanted = STAGES[stage].frames_per_block
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

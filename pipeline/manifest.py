"""Data set manifests: data_manifests/<name>.yaml in, one frozen Manifest out.

A manifest holds what a data set's files do not say: classes, label map, splits, few-shot rule, pair
gap, scales. Layout (which reader) and name are separate, since several sets share one layout.
"""

import dataclasses
import functools
import os
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import yaml

from pipeline.errors import UserError, check, unknown_name
from pipeline.files import sha256

FOLDER = Path(__file__).resolve().parents[1] / "data_manifests"
IGNORED = 255  # train id of points that are neither trained on nor evaluated
HALVED_FROM_PX = 600  # images whose short side is at least this are stored at half size


@dataclass(frozen=True)
class Manifest:
    """Everything about a data set that its own files do not say."""

    name: str
    layout: str  # name in pipeline.datasets.table.LAYOUTS
    versions: tuple[str, ...]  # version folders under the root, preferred first; () = no versions
    license: str
    how_to_get: str
    cameras: tuple[str, ...]  # in the order of the stores' camera axis
    num_rings: int  # LiDAR beams
    pair_gap: int  # frames from t to its successor, about 0.5 s
    few_shot: Literal["scenes", "frames"]  # what a label subset keeps one in k of
    scene_lists: dict[str, tuple[str, ...]]  # split -> scenes; empty where `splits_file` lists them
    pretrain_split: str  # what pretraining uses unless told otherwise
    intensity_max: float  # scale of the stored intensity
    intensity_offset: float  # what SLidR adds to the raw value it feeds
    metric: Literal["present", "slidr"]  # 'present' leaves classes that never occur out of the mean
    classes: tuple[str, ...]  # by train id
    colors: dict[str, tuple[int, int, int]]  # class -> RGB
    raw_names: dict[int, str]
    raw_to_train: dict[int, int]
    fallback_cameras: tuple[str, ...] = ()  # used where none of `cameras` has an image
    splits_file: str | None = None  # in the version folder: {"train": [...], "val": [...]}
    store_scale: float | None = None  # None = the rule of scale_for

    def __post_init__(self) -> None:
        """Check what the YAML gives.

        Raises:
            UserError: a map or color that does not fit the classes.
        """
        where = f"data_manifests/{self.name}.yaml"
        check(
            set(self.colors) == set(self.classes),
            f"{where}: colors must name the classes, got only in one of the two: "
            f"{sorted(set(self.colors) ^ set(self.classes))}; add or drop them",
        )
        bad = [
            t
            for t in self.raw_to_train.values()
            if not (t == IGNORED or t in range(len(self.classes)))
        ]
        check(
            not bad, f"{where}: raw_to_train must hold 0..{len(self.classes) - 1} or 255, got {bad}"
        )
        lacking = sorted(set(self.raw_to_train) ^ set(self.raw_names))
        check(
            not lacking,
            f"{where}: raw_names and raw_to_train must have the same ids, got {lacking}",
        )

    def label_map(self) -> np.ndarray:
        """Return the table [65536] uint8 from raw id to train id, 255 = ignored or unknown."""
        table = np.full(65536, IGNORED, np.uint8)
        table[list(self.raw_to_train)] = list(self.raw_to_train.values())
        return table

    def unknown_ids(self, semantic: np.ndarray) -> np.ndarray:
        """Return the raw ids in `semantic` (any shape, uint16) that the label map does not list.

        They train as ignored; whoever maps labels counts and reports them.
        """
        return np.setdiff1d(np.unique(semantic), list(self.raw_to_train))

    def label_map_hash(self) -> str:
        """Return a hash of class order and label map, for results and stores."""
        return sha256(orjson.dumps([self.classes, self.label_map().tolist()]))[:16]

    def content_hash(self) -> str:
        """Return a hash of the whole manifest."""
        option = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
        return sha256(orjson.dumps(dataclasses.asdict(self), option=option))[:16]

    def scale_for(self, height: int, width: int) -> float:
        """Return store size over native size: 0.5 from 600 pixels short side on, else 1.

        At native size reading six 1600x900 superpixel maps costs 36 ms a frame, at half size 9 ms.
        """
        if self.store_scale is not None:
            return self.store_scale
        return 0.5 if min(height, width) >= HALVED_FROM_PX else 1.0


def names() -> list[str]:
    """Return the names of all data sets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@functools.cache
def load_manifest(name: str) -> Manifest:
    """Return the manifest of a data set.

    Raises:
        UserError: no such data set (lists them), or a key that is missing or unknown.
    """
    path = FOLDER / f"{name}.yaml"
    if name not in names():
        raise unknown_name("data set", name, names())
    content = yaml.safe_load(path.read_text())
    splits = content.pop("splits", {})
    if isinstance(splits, str) and splits.endswith(".yaml"):
        splits = yaml.safe_load((FOLDER / splits).read_text())
    elif isinstance(splits, str):
        content["splits_file"], splits = splits, {}
    if "slidr_mini_val" in splits:  # SLidR pretrains on train without its held-out hundred scenes
        held_out = set(splits["slidr_mini_val"])
        splits["slidr_train"] = [scene for scene in splits["train"] if scene not in held_out]
    content["scene_lists"] = splits
    return _from_plain(content, path)


def _from_plain(content: dict[str, Any], path: Path) -> Manifest:
    fields = {field.name: field for field in dataclasses.fields(Manifest)}
    for key in content:
        if key not in fields:
            raise unknown_name(f"{path}: key", key, fields)
    missing = [
        n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in content
    ]
    check(not missing, f"{path}: must have the keys {', '.join(missing)}; add them")
    hints = typing.get_type_hints(Manifest)
    return Manifest(**{key: _freeze(value, hints[key]) for key, value in content.items()})


def _freeze(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return {key: _freeze(item, None) for key, item in value.items()}
    return hint(value) if hint in (int, float) else value


def find_root(name: str, flag: str | os.PathLike | None = None) -> Path:
    """Return the folder of a data set: the flag, else <NAME>_ROOT, with `~` and `$X` expanded.

    Raises:
        UserError: neither is given, or the folder is not there; names flag and variable.
    """
    manifest = load_manifest(name)
    variable = f"{name.upper().replace('-', '_')}_ROOT"
    given, source = (flag, "--root") if flag else (os.environ.get(variable), variable)
    if not given:
        raise UserError(
            f"data set '{name}': the folder of its recordings must be given; pass --root FOLDER or "
            f"set {variable} (to get the data: {manifest.how_to_get})"
        )
    root = Path(os.path.expandvars(os.path.expanduser(given)))
    if not root.is_dir():
        raise UserError(
            f"data set '{name}': {source} must be a folder, got '{given}'"
            f"{'' if str(root) == str(given) else f' = {root}'}; correct --root or {variable}"
        )
    return root


def resolve_version(manifest: Manifest, root: Path, version: str | None = None) -> str | None:
    """Return the version to index: the one asked for, else the first of the manifest that is there.

    Raises:
        UserError: the version folder is not there, or the data set has no versions.
    """
    if not manifest.versions:
        check(
            version is None,
            f"data set '{manifest.name}': has no versions, got '{version}'; drop --version",
        )
        return None
    wanted = (version,) if version else manifest.versions
    for candidate in wanted:
        if (root / candidate).is_dir():
            return candidate
    raise UserError(
        f"{root}: must hold the folder {' or '.join(wanted)} with the tables of '{manifest.name}', "
        f"got none; correct --root or --version (to get the data: {manifest.how_to_get})"
    )

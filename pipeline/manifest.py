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
from pipeline.taxonomy import Taxonomy

FOLDER = Path(__file__).resolve().parents[1] / "data_manifests"
HALVED_FROM_PX = 600  # images whose short side is at least this are stored at half size


@dataclass(frozen=True)
class Folders:
    """Where a KITTI-like set has its scans: `<base>/<scene>/<scans>` or `<base>/<scans>/<scene>`.

    `{version}` in a base is the version's folder, found without regard to case.
    """

    bases: tuple[str, ...] = ("sequences", "dataset/sequences")  # the first that is there
    scans: str = "velodyne"
    labels: str = "labels"
    train_labels: str | None = None  # labels of training scenes, where those are kept apart


@dataclass(frozen=True)
class Manifest:
    """Everything about a data set that its own files do not say."""

    name: str
    layout: str  # name in pipeline.datasets.table.LAYOUTS
    versions: tuple[str, ...]  # preferred first; () = no versions
    license: str
    how_to_get: str
    cameras: tuple[str, ...]  # in the order of the stores' camera axis
    num_rings: int  # LiDAR beams
    pair_gap: int  # frames from t to its successor, about 0.5 s; 0 = frames have none
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
    version_kind: Literal["folder", "variant"] = "folder"  # a folder under the root, or a choice
    folders: Folders = Folders()
    split_folders: dict[str, str] = dataclasses.field(default_factory=dict)
    # ^ folder under the root -> split, where the splits lie apart ('.' = the root itself)
    by_version: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    # ^ version -> what it has in place of `num_rings` or `intensity_max`
    has_poses: bool = True  # False where the pose files, if any, are not known to be poses
    rate_hz: float = 10.0  # of the scans, where no file has their times
    distortion: tuple[float, ...] = ()  # of the cameras, where no file has it: k1 k2 p1 p2 k3
    intensity_squash: Literal["none", "tanh"] = "none"  # before the offset, against a long tail
    taxonomies: dict[str, Taxonomy] = dataclasses.field(default_factory=dict)  # alternatives
    counts: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    # ^ version ('any' = every one) -> split -> frames of a complete copy
    frame_lists: str | None = None  # file beside the manifests with the frames of each split
    unverified: tuple[str, ...] = ()  # what above was not read from a source: check it on your copy

    def __post_init__(self) -> None:
        """Check what the YAML gives.

        Raises:
            UserError: a map or color that does not fit the classes, or numbers of no version.
        """
        where = f"data_manifests/{self.name}.yaml"
        self.taxonomy().check(where, self.raw_names)
        for name, taxonomy in self.taxonomies.items():
            taxonomy.check(f"{where}: taxonomies.{name}", self.raw_names)
        for version, numbers in self.by_version.items():
            if version not in self.versions:
                raise unknown_name(f"{where}: by_version", version, self.versions)
            known = ("num_rings", "intensity_max")
            for key in set(numbers) - set(known):
                raise unknown_name(f"{where}: by_version.{version}", key, known)

    def for_version(self, version: str | None) -> "Manifest":
        """Return the manifest with the numbers of one version, as of another LiDAR."""
        return dataclasses.replace(self, **self.by_version.get(version or "", {}))

    def taxonomy(self, name: str = "") -> Taxonomy:
        """Return the classes to evaluate: the data set's default, or an alternative by name.

        Raises:
            UserError: no such alternative (lists them).
        """
        if not name:
            return Taxonomy(self.classes, self.colors, self.raw_to_train)
        if name not in self.taxonomies:
            raise unknown_name(f"data set '{self.name}': taxonomy", name, self.taxonomies)
        return self.taxonomies[name]

    def label_map(self) -> np.ndarray:
        """Return the table [65536] uint8 from raw id to train id, 255 = ignored or unknown."""
        return self.taxonomy().label_map()

    def unknown_ids(self, semantic: np.ndarray) -> np.ndarray:
        """Return the raw ids in `semantic` (any shape, uint16) that the label map does not list.

        `index` names them, and training or evaluation on a frame with one is refused.
        """
        return np.setdiff1d(np.unique(semantic), list(self.raw_to_train))

    def label_map_hash(self) -> str:
        """Return a hash of class order and label map, for results and stores."""
        return self.taxonomy().content_hash()

    def expected_counts(self, version: str | None) -> dict[str, int]:
        """Return split -> frames of a complete copy; empty where nobody counted."""
        return self.counts.get(version or "any", self.counts.get("any", {}))

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
    elif isinstance(splits, list):  # names only: the data set's own files say who is in them
        splits = {name: [] for name in splits}
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
    has_default = {
        n for n, f in fields.items() if {f.default, f.default_factory} != {dataclasses.MISSING}
    }
    missing = sorted(set(fields) - has_default - set(content), key=list(fields).index)
    check(not missing, f"{path}: must have the keys {', '.join(missing)}; add them")
    hints = typing.get_type_hints(Manifest)
    return Manifest(**{key: _freeze(value, hints[key]) for key, value in content.items()})


def _freeze(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if hint is Folders:
        return Folders(**{key: _freeze(item, None) for key, item in value.items()})
    if hint == dict[str, Taxonomy]:
        return {key: Taxonomy(**_freeze(item, None)) for key, item in value.items()}
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
    if manifest.version_kind == "variant":
        if version is not None and version not in manifest.versions:
            raise unknown_name(f"data set '{manifest.name}': version", version, manifest.versions)
        return version or manifest.versions[0]
    wanted = (version,) if version else manifest.versions
    for candidate in wanted:
        if version_folder(root, candidate):
            return candidate
    raise UserError(
        f"{root}: must hold the folder {' or '.join(wanted)} of '{manifest.name}', "
        f"got none; correct --root or --version (to get the data: {manifest.how_to_get})"
    )


def version_folder(root: Path, version: str) -> str | None:
    """Return the name of a version's folder under the root, whatever its case; None = not there."""
    if (root / version).is_dir():
        return version
    same = (p.name for p in sorted(root.iterdir()) if p.name.casefold() == version.casefold())
    return next((name for name in same if (root / name).is_dir()), None)

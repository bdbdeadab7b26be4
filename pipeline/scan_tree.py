"""The folders of KITTI-like data sets: scenes, each with scans and labels named alike.

In: a root and what the manifest says of its folders. Out: scenes and their files. Copies differ in
nesting (`00/velodyne` or `velodyne/00`) and in what lies above; both are found here, once for all.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError, check
from pipeline.formats import PointFiles
from pipeline.manifest import Manifest, version_folder
from pipeline.splits import assign_frame_splits, assign_splits, scene_lists
from pipeline.types import Frame


@dataclass(frozen=True)
class Tree:
    """Folders `<base>/<scene>/<kind>/` or `<base>/<kind>/<scene>/` below a root."""

    root: Path
    base: str  # relative to the root; '' = the root itself

    def scenes(self, kind: str) -> list[str]:
        """Return the names of the scenes that have a folder of this kind, sorted."""
        here = self.root / self.base
        if not here.is_dir():
            return []
        nested = sorted(p.name for p in here.iterdir() if (p / kind).is_dir())
        other = here / kind
        flipped = sorted(p.name for p in other.iterdir() if p.is_dir()) if other.is_dir() else []
        return nested or flipped

    def folder(self, scene: str, kind: str) -> str:
        """Return the folder of a scene's files of one kind, relative to the root."""
        paths = [str(Path(self.base, *parts)) for parts in ((scene, kind), (kind, scene))]
        return next((path for path in paths if (self.root / path).is_dir()), paths[0])

    def files(self, scene: str, kind: str, suffixes: Sequence[str]) -> dict[str, str]:
        """Return stem -> path relative to the root, sorted by stem; empty without such a folder."""
        folder = self.folder(scene, kind)
        names = sorted(os.listdir(self.root / folder)) if (self.root / folder).is_dir() else []
        return {
            name.removesuffix(suffix): f"{folder}/{name}"
            for name in names
            for suffix in suffixes
            if name.endswith(suffix)
        }


@dataclass(frozen=True)
class Scan:
    """One scan as the folders tell of it."""

    scene: str
    stem: str
    position: int  # its number where every name is one, else its place in the sorted folder
    path: str  # relative to the root
    label_path: str | None


def find_tree(root: Path, manifest: Manifest, version: str | None) -> Tree:
    """Return the tree of a data set: the first of the manifest's bases that holds a scene.

    Raises:
        UserError: none does; names what was looked for.
    """
    folder = (version_folder(root, version) if version else None) or version
    bases = [base.format(version=folder) for base in manifest.folders.bases]
    for base in bases:
        if Tree(root, base).scenes(manifest.folders.scans):
            return Tree(root, base)
    there = [base for base in bases if base and (root / base).is_dir()]
    wanted = f"<sequence>/{manifest.folders.scans}"
    if there:
        raise UserError(
            f"{root / there[0]}: must hold {wanted}, got none; to get the data: "
            f"{manifest.how_to_get}"
        )
    raise UserError(
        f"{root}: must hold {' or '.join(base or wanted for base in bases)}, got "
        f"{'neither' if len(bases) > 1 else 'none'}; correct the root"
    )


def list_scans(
    tree: Tree, manifest: Manifest, point_suffixes: Sequence[str], label_suffixes: Sequence[str]
) -> list[Scan]:
    """Return every scan of every scene, in the order of scene, then position.

    Raises:
        UserError: there is none.
    """
    folders = manifest.folders
    training = manifest.scene_lists.get("train", ())
    scans = []
    for scene in tree.scenes(folders.scans):
        paths = tree.files(scene, folders.scans, point_suffixes)
        apart = folders.train_labels and scene in training
        labels = tree.files(
            scene, folders.train_labels if apart else folders.labels, label_suffixes
        )
        numbered = all(stem.isdecimal() for stem in paths)
        order = sorted(paths, key=int) if numbered else sorted(paths)
        scans += [
            Scan(scene, stem, int(stem) if numbered else place, paths[stem], labels.get(stem))
            for place, stem in enumerate(order)
        ]
    check(
        bool(scans),
        f"{tree.root / tree.base}: must hold <sequence>/{folders.scans}/*{point_suffixes[0]}, got "
        f"none; to get the data: {manifest.how_to_get}",
    )
    return scans


def scene_splits(
    manifest: Manifest, root: Path, version: str | None, scans: Sequence[Scan]
) -> list[tuple[str, ...]]:
    """Return the splits of every scan where the manifest lists scenes; few-shot among the labeled.

    Raises:
        UserError: no scene is in any split.
    """
    return assign_splits(
        manifest,
        scene_lists(manifest, root, version),
        list(dict.fromkeys(scan.scene for scan in scans)),
        [scan.scene for scan in scans],
        [scan.path for scan in scans],
        [scan.label_path is not None for scan in scans],
    )


def plain_frames(
    root: Path,
    manifest: Manifest,
    version: str | None,
    scans: Sequence[Scan],
    own_splits: Callable[[Scan], tuple[str, ...]] | None,
    count: Callable[[Path], int],
) -> list[Frame]:
    """Return the frames of a set that has neither cameras nor poses.

    Args:
        root: of the data set.
        manifest: splits, rate.
        version: for split files that lie in a version's folder.
        scans: from list_scans.
        own_splits: the data set's own splits of a scan; None = the manifest lists scenes.
        count: bound of a scan's points from its file, without decoding.

    Raises:
        UserError: no scene is in any split, or scans are missing.
    """
    labeled = [scan.label_path is not None for scan in scans]
    if own_splits:
        paths = [scan.path for scan in scans]
        members = assign_frame_splits(manifest, list(map(own_splits, scans)), paths, labeled)
    else:
        members = scene_splits(manifest, root, version, scans)
    files = PointFiles(root)
    frames = [
        Frame(
            frame_id=frame_name(scan),
            scene=scan.scene,
            position=scan.position,
            splits=splits,
            t_ns=scan_time_ns(manifest, scan.position),
            points_path=scan.path,
            max_points=files.count(scan.path, count),
            lidar_token=f"{scan.scene}_{scan.stem}",
            T_world_lidar=None,
            successor_id=None,
            label_path=scan.label_path,
        )
        for scan, splits in zip(scans, members, strict=True)
    ]
    files.check_complete("copy the scans again")
    return frames


def frame_name(scan: Scan) -> str:
    """Return the frame id of a scan, which stays the same when files are added."""
    return f"{scan.scene}/{int(scan.stem) if scan.stem.isdecimal() else scan.stem}"


def scan_time_ns(manifest: Manifest, position: int) -> int:
    """Return the time of a scan from its number, where no file tells it."""
    return int(round(position * 1e9 / manifest.rate_hz))

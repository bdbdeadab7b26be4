"""Which splits a frame belongs to: scene lists of the data set, and SLidR's label subsets.

In: a manifest and the frames in the data set's own order. Out: split names per frame. The order
decides: counting scenes sorted by name keeps other scenes at 1 % (seven of seven hundred).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson
import yaml

from pipeline.errors import UserError, check
from pipeline.manifest import FOLDER, Manifest

SUBSETS = {"1pct": 100, "5pct": 20, "10pct": 10, "25pct": 4, "half": 2, "full": 1}  # one in k


def split_names(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of all splits of a data set, in the order of the index's bits."""
    own = tuple(manifest.scene_lists or ("train", "val"))
    return (*own, *(name for name in SUBSETS if name not in own))


def scene_lists(manifest: Manifest, root: Path, version: str | None) -> dict[str, frozenset[str]]:
    """Return the scenes of each split, from the manifest or from the data set's own file.

    Raises:
        UserError: the file is missing, broken or lacks a split.
    """
    if not manifest.splits_file:
        return {split: frozenset(scenes) for split, scenes in manifest.scene_lists.items()}
    path = root / (version or "") / manifest.splits_file
    advice = f"make the data set again ({manifest.how_to_get})"
    try:
        lists = orjson.loads(path.read_bytes())
        return {split: frozenset(lists[split]) for split in ("train", "val")}
    except FileNotFoundError:
        raise UserError(
            f"{path}: must list the scenes of each split, not found; {advice}"
        ) from None
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: must be {{"train": [...], "val": [...]}}, got {error!r}; {advice}'
        ) from None


def read_masks(manifest: Manifest) -> dict[str, int]:
    """Return scene -> bit mask of its training frames; the other frames are for validation.

    Raises:
        RuntimeError: the manifest names no such file.
    """
    if manifest.frame_lists is None:
        raise RuntimeError(f"data_manifests/{manifest.name}.yaml: frame_lists must name a file")
    content = yaml.safe_load((FOLDER / manifest.frame_lists).read_text())
    return {scene: int(str(mask), 16) for scene, mask in content["train_mask_hex"].items()}


def thin_scenes(scenes: Iterable[str], train: frozenset[str], step: int) -> set[str]:
    """Return the training scenes that a label subset keeps: the step-th, 2 step-th, ...

    Args:
        scenes: every scene in the data set's own order (file order of scene.json).
        train: scenes of the training split; the others do not count.
        step: keep one in `step`.

    Source: valeoai/SLidR downstream/dataloader_nuscenes.py (Apache-2.0), dataset_skip_step.
    """
    return set([scene for scene in scenes if scene in train][step - 1 :: step])


def thin_frames(paths: Iterable[str], step: int) -> set[str]:
    """Return the paths that a label subset keeps: of the sorted list every step-th from the first.

    Source: valeoai/SLidR downstream/dataloader_kitti.py (Apache-2.0).
    """
    return set(sorted(paths)[::step])


def assign_splits(
    manifest: Manifest,
    lists: dict[str, frozenset[str]],
    scenes: Sequence[str],
    frame_scenes: Sequence[str],
    frame_paths: Sequence[str],
    labeled: Sequence[bool] | None = None,
) -> list[tuple[str, ...]]:
    """Return the split names of every frame.

    Args:
        manifest: for the few-shot rule.
        lists: split -> scenes, from scene_lists.
        scenes: every scene in the data set's own order, those without frames included.
        frame_scenes: [F] scene of each frame.
        frame_paths: [F] point file of each frame, relative to the root.
        labeled: [F] as in assign_frame_splits.

    Raises:
        UserError: no scene is in any split, so that every split would be empty.
    """
    known = frozenset().union(*lists.values())
    check(
        not scenes or any(scene in known for scene in scenes),
        f"data set '{manifest.name}': scenes must be in its split lists, got {list(scenes)[:3]} "
        f"and {max(len(scenes) - 3, 0)} more in none of them; is this another data set?",
    )
    of_scene = {scene: [s for s, members in lists.items() if scene in members] for scene in scenes}
    own = [of_scene[scene] for scene in frame_scenes]
    if manifest.few_shot == "frames":
        return assign_frame_splits(manifest, own, frame_paths, labeled)
    kept = {name: thin_scenes(scenes, lists["train"], step) for name, step in SUBSETS.items()}
    return [
        (*names, *(name for name in SUBSETS if scene in kept[name]))
        for names, scene in zip(own, frame_scenes, strict=True)
    ]


def assign_frame_splits(
    manifest: Manifest,
    own: Sequence[Sequence[str]],
    frame_paths: Sequence[str],
    labeled: Sequence[bool] | None = None,
) -> list[tuple[str, ...]]:
    """Return the split names of every frame where the data set says them frame by frame.

    Args:
        manifest: for the splits it lists; a subset that it lists itself is not thinned here.
        own: [F] the data set's own splits of each frame.
        frame_paths: [F] point file of each frame; sorted, it decides what a subset keeps.
        labeled: [F] which frames have labels. Given, frames without are in no subset and not in
            'val', unless the whole data set has none. None = all have.
    """
    usable = [True] * len(own) if labeled is None or not any(labeled) else labeled
    training = [p for p, names, use in zip(frame_paths, own, usable, strict=True)
                if "train" in names and use]  # fmt: skip
    kept = {
        name: thin_frames(training, step)
        for name, step in SUBSETS.items()
        if name not in manifest.scene_lists
    }
    return [
        (
            *(name for name in names if use or name != "val"),
            *(name for name, paths in kept.items() if path in paths),
        )
        for names, path, use in zip(own, frame_paths, usable, strict=True)
    ]

"""Which frames a run uses: those of its split that every store holds, and what is left out.

Nothing is left out in silence: every choice says on standard error how many frames it dropped.
"""

import sys

import numpy as np

from pipeline.errors import UserError, check
from train.stores import Stores


def choose_rows(stores: Stores, split: str, stages: tuple[str, ...]) -> np.ndarray:
    """Return the rows [R] int64 of a split that all stages hold.

    Args:
        stores: the data set.
        split: name of a split.
        stages: stages whose stores must hold each row; quarantined frames are left out.

    Raises:
        UserError: the split is empty (names the smallest that is not), a stage or block is
            missing, or every frame is quarantined.
    """
    rows = stores.index.split_mask(split).nonzero()[0]
    if not len(rows):
        raise _empty_split(stores, split)
    return _without(stores, rows, stores.left_out(rows, stages))


def choose_labeled(stores: Stores, split: str, stages: tuple[str, ...]) -> np.ndarray:
    """Return the rows [R] int64 of a split that all stages hold and that have labels.

    Raises:
        UserError: as `choose_rows`, or no frame has labels.
    """
    rows = choose_rows(stores, split, stages)
    labeled = rows[stores.has_labels()[rows]]
    check(
        len(labeled) > 0,
        f"{stores.paths.folder}: split '{split}' must have labels, got {len(rows)} frames without "
        "any; choose another split",
    )
    if len(labeled) < len(rows):
        missing = len(rows) - len(labeled)
        print(f"{missing} of {len(rows)} frames left out: no labels", file=sys.stderr)
    return labeled


def choose_pairs(
    stores: Stores, split: str, stages: tuple[str, ...], with_successors: bool
) -> np.ndarray:
    """Return the rows [R] int64 of a split to pretrain on: each has an image.

    Args:
        stores: the data set.
        split: name of a split; '' = the data set's own for pretraining.
        stages: stages whose stores must hold each row.
        with_successors: also leave out rows whose successor's scan cannot be read.

    Raises:
        UserError: as `choose_rows`, or no frame has an image.
    """
    index = stores.index
    split = split or ("slidr_train" if "slidr_train" in index.splits else "train")
    rows = index.split_mask(split).nonzero()[0]
    if not len(rows):
        raise _empty_split(stores, split)
    blind = rows[~stores.has_images()[rows]].tolist()
    left_out = {row: f"frame {row}: no image" for row in blind}
    seeing = np.setdiff1d(rows, blind)
    check(
        len(seeing) > 0,
        f"{stores.paths.folder}: split '{split}' must have images to pretrain on, got {len(rows)} "
        "frames without any; choose another split",
    )
    left_out |= stores.left_out(seeing, stages)
    if with_successors:
        after = index.successor[seeing]
        lost = stores.left_out(np.unique(after[after >= 0]), ("frames",))
        for row, successor in zip(seeing.tolist(), after.tolist(), strict=True):
            if successor in lost:
                left_out[row] = f"frame {row}: its successor is out, {lost[successor]}"
    return _without(stores, rows, left_out)


def _without(stores: Stores, rows: np.ndarray, left_out: dict[int, str]) -> np.ndarray:
    reasons = [left_out[row] for row in sorted(left_out)]
    check(
        len(reasons) < len(rows),
        f"{stores.paths.folder}: a frame must be usable, got {len(rows)} that are not "
        f"({'; '.join(reasons[:1])})",
    )
    if reasons:
        print(f"{len(reasons)} of {len(rows)} frames left out: {reasons[0]}", file=sys.stderr)
    return np.setdiff1d(rows, sorted(left_out))


def _empty_split(stores: Stores, split: str) -> UserError:
    sizes = [(int(stores.index.split_mask(s).sum()), s) for s in stores.index.splits]
    usable = min([(count, name) for count, name in sizes if count], default=None)
    hint = f"the smallest usable one is '{usable[1]}' ({usable[0]} frames)" if usable else ""
    return UserError(
        f"{stores.paths.folder}: split '{split}' must hold frames, got none; "
        f"{hint or 'no other split has any'}"
    )

"""How good the segments are, measured against labeled objects.

In: segment ids and object numbers of the same points. Out: purity and the share of objects that
keep their id from frame t to its successor. Object 0 = not labeled, left out.
"""

import numpy as np


def purity(ids: np.ndarray, objects: np.ndarray, threshold: float = 0.9) -> float:
    """Return the share of clustered points in segments of which at least `threshold` is one object.

    Args:
        ids: [N] segment ids, 0 = none. Ids of several frames may be concatenated.
        objects: [N] object numbers, any integers (for example instance * 65536 + class).
        threshold: 0..1.

    Returns:
        0..1, over labeled points with an id; NaN where there are none.
    """
    counts = _counts(ids, objects)
    if counts.size == 0:
        return float("nan")
    total = counts.sum(axis=1)
    is_pure = counts.max(axis=1) >= threshold * total
    return float(total[is_pure].sum() / total.sum())


def kept_ids(
    ids_t: np.ndarray,
    objects_t: np.ndarray,
    ids_s: np.ndarray,
    objects_s: np.ndarray,
    chosen: np.ndarray,
    min_points: int = 10,
) -> float:
    """Return the share of objects whose main segment in frame t is also their main one after.

    Args:
        ids_t: [N] segment ids of frame t, 0 = none.
        objects_t: [N] object numbers of frame t, the same numbers as in the successor.
        ids_s: [M] segment ids of the successor.
        objects_s: [M] object numbers of the successor.
        chosen: objects to judge, for example those that move.
        min_points: objects with no more points than this in either frame are not judged.

    Returns:
        0..1; NaN where no chosen object can be judged. Mostly without a segment = not kept.
    """
    judged = kept = 0
    for number in np.unique(chosen):
        of_t, of_s = ids_t[objects_t == number], ids_s[objects_s == number]
        if min(len(of_t), len(of_s)) <= min_points:
            continue
        judged += 1
        main_t, main_s = np.bincount(of_t).argmax(), np.bincount(of_s).argmax()
        kept += bool(main_t == main_s and main_t > 0)
    return kept / judged if judged else float("nan")


def _counts(ids: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return how many points each (segment, object) shares, both without 0."""
    is_counted = (ids > 0) & (objects != 0)
    segments, segment = np.unique(ids[is_counted], return_inverse=True)
    numbers, number = np.unique(objects[is_counted], return_inverse=True)
    flat = np.bincount(segment * len(numbers) + number, minlength=len(segments) * len(numbers))
    return flat.reshape(len(segments), len(numbers))

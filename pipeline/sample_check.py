"""A few frames opened before hours are spent: do scans and labels fit, are all ids known?

In: frames spread over a data set. Out: lines for the user. Opening all would take as long as stage
frames, which checks every one of them anyway.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.datasets.table import LAYOUTS
from pipeline.errors import UserError
from pipeline.manifest import Manifest
from pipeline.types import Frame

SAMPLED = 12  # frames; 0.2 s on KITTI


def spread(rows: np.ndarray) -> np.ndarray:
    """Return at most SAMPLED of the rows [R], evenly spread, the first and the last included."""
    if len(rows) <= SAMPLED:
        return rows
    return rows[np.linspace(0, len(rows) - 1, SAMPLED).round().astype(int)]


def find_sample_problems(frames: Sequence[Frame], root: Path, manifest: Manifest) -> list[str]:
    """Return one line per frame that cannot be read, and one for ids that the manifest lacks."""
    reader = LAYOUTS.load(manifest.layout)
    problems = []
    unknown: dict[int, str] = {}  # raw id -> first frame
    for frame in frames:
        try:
            cloud = reader.load_points(root, frame.points_path)
            labels = reader.load_labels(root, frame, len(cloud.points))
        except UserError as error:
            problems.append(f"{frame.frame_id}: {error}")
            continue
        if labels is not None:
            for raw in manifest.unknown_ids(labels.semantic).tolist():
                unknown.setdefault(raw, frame.frame_id)
    if unknown:
        listed = ", ".join(f"{raw} ({frame_id})" for raw, frame_id in sorted(unknown.items())[:10])
        problems.append(
            f"{root}: labels must hold ids of data_manifests/{manifest.name}.yaml, got {listed}"
            f"{' ...' if len(unknown) > 10 else ''}; add them to raw_names and raw_to_train "
            "(255 = ignored), since training on frames with them is refused"
        )
    return problems

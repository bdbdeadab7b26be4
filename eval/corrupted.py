"""Stores whose frames come out corrupted, and the files of a corrupted data set.

In: frames.zarr of a data set with nuScenes' raw classes and 32 beams. Out: the same frames under
one corruption, on the fly, or in the layout of nuScenes-C.
"""

from pathlib import Path

import numpy as np

from eval.corruptions.table import corrupt
from eval.scan import CROSSTALK, ECHO_CLASSES, FOG, GROUND, SNOW, Scan
from pipeline.errors import check
from pipeline.files import write_atomically
from pipeline.progress import Progress
from train.stores import StorePaths, Stores

GROUND_CLASSES = ("driveable_surface", "other_flat", "sidewalk")
LABELS_FOLDER = "lidarseg/v1.0-trainval"  # as nuScenes-C calls it, whichever tables it goes with


class CorruptedStores(Stores):
    """One data set's stores seen through a corruption; only points and labels can be read."""

    def __init__(
        self, paths: StorePaths, kind: str, severity: str, settings: tuple[str, ...] = ()
    ) -> None:
        super().__init__(paths)
        self.settings = settings
        self.kind = kind
        self.severity = severity
        self._last: tuple[int, Scan] | None = None

    def scan(self, row: int) -> Scan:
        """Return a corrupted frame with raw intensities and raw labels; the last one is kept."""
        if self._last is None or self._last[0] != row:
            clean = read_scan(self, row)
            key = self.index.frame_ids[row]
            found = corrupt(clean, self.kind, self.severity, key, settings=self.settings)
            self._last = row, found
        return self._last[1]

    def points(self, row: int) -> np.ndarray:
        """Return corrupted points [N, 4] float32 as networks take them."""
        points = self.scan(row).points.copy()
        points[:, 3] = self._feed(points[:, 3])
        return points

    def labels(self, row: int) -> np.ndarray:
        """Return train ids [N] uint8; what a corruption made is ignored (255)."""
        raw = self.scan(row).labels
        return np.where(np.isin(raw, (FOG, SNOW, CROSSTALK)), 255, self.label_map[raw])

    def holds(self, stage: str, rows: np.ndarray) -> bool:
        """Return False for all but frames: moved points have other pixels."""
        return stage == "frames" and super().holds(stage, rows)


def read_scan(stores: Stores, row: int) -> Scan:
    """Return a clean labeled frame with raw intensities and raw labels.

    Raises:
        UserError: the frame has no labels.
    """
    frames = stores.store("frames")
    check(
        bool(frames.read("has_labels", row)),
        f"{frames.path}: frame {row} must have labels, got none; corruptions need the true labels",
    )
    count = slice(0, int(frames.read("num_points", row)))
    labels = frames.read("labels", row, count)
    return Scan(
        frames.read("points", row, count), frames.read("ring", row, count), labels.astype(np.uint8)
    )


def check_can_corrupt(stores: Stores) -> None:
    """Refuse a data set without nuScenes' raw classes: the corruptions read their numbers.

    Raises:
        UserError: names the first raw id that is another class.
    """
    attributes = stores.store("frames").attributes
    classes, mapping = attributes["classes"], attributes["raw_to_train"]
    wanted = dict(zip(GROUND, GROUND_CLASSES, strict=True))
    wanted |= {raw: name for name, raws in ECHO_CLASSES.items() for raw in raws}
    for raw, name in wanted.items():
        train_id = mapping.get(str(raw), 255)
        found = classes[train_id] if train_id < len(classes) else "ignored"
        check(
            found == name,
            f"{stores.paths.folder}: corruptions need nuScenes' raw classes, raw id {raw} must be "
            f"{name}, got {found}; use nuscenes or synthetic",
        )


def write_corrupted(
    stores: Stores,
    rows: np.ndarray,
    kind: str,
    severity: str,
    out: Path,
    settings: tuple[str, ...] = (),
) -> Path:
    """Write frames in the layout of nuScenes-C and return the folder `<out>/<kind>/<severity>`.

    Points are 5 x float32 (x, y, z, intensity, ring), labels uint8 raw ids; names are those of the
    clean files, so that nuScenes' own tables go with them. A frame's points come before its labels
    and each file is whole or absent.

    Args:
        stores: clean data set.
        rows: [R] index rows.
        kind: corruption.
        severity: light, moderate or heavy.
        out: folder.
        settings: 'kind.severity.key=value' in place of the published levels.

    Source: layout of datasets.md 11.1 (Robo3D's nuScenes-C).
    """
    check_can_corrupt(stores)
    corrupted = CorruptedStores(stores.paths, kind, severity, settings)
    folder = out / kind / severity
    progress = Progress(f"corrupt {kind} {severity}", len(rows))
    for row in rows.tolist():
        frame, scan = stores.index.frame(row), corrupted.scan(row)
        values = np.column_stack([scan.points, scan.ring]).astype("<f4")
        write_atomically(
            folder / "samples/LIDAR_TOP" / Path(frame.points_path).name, values.tobytes()
        )
        name = Path(frame.label_path or f"{frame.lidar_token}_lidarseg.bin").name
        write_atomically(folder / LABELS_FOLDER / name, scan.labels.tobytes())
        progress.advance()
    progress.close()
    return folder

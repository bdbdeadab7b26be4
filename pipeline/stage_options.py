"""What commands of stage one ask for: a data set, frames of it, where and how to compute."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from pipeline.errors import check
from pipeline.options import gathered

if TYPE_CHECKING:
    from pipeline.job import Limits
    from pipeline.scheduler import Where
    from pipeline.stage import Place

CITY = "synthetic"


@dataclass(frozen=True)
class Data:
    """Which data set, where it is and where its stores go."""

    dataset: str
    root: str | None
    version: str | None
    stores: Path

    def find(self, need_root: bool = True) -> "Place":
        """Return where things are; the city is made on the spot where nobody said where it is."""
        from pipeline.index import find_folder
        from pipeline.manifest import find_root, load_manifest, resolve_version
        from pipeline.stage import Place

        name, manifest = self.dataset, load_manifest(self.dataset)
        if name == CITY:
            from pipeline.synthetic.find import find_city

            city, size_and_seed = find_city(self.root, self.version, make=need_root)
            tables = resolve_version(manifest, city, None) if need_root else None
            return Place(manifest, city, tables, self.stores / f"{name}-{size_and_seed}")
        if not need_root and not self.root:
            return Place(manifest, None, self.version, find_folder(self.stores, name, self.version))
        found = find_root(name, self.root)
        version = resolve_version(manifest, found, self.version)
        return Place(
            manifest, found, version, self.stores / (f"{name}-{version}" if version else name)
        )


@dataclass(frozen=True)
class Chosen:
    """Which frames are meant."""

    scenes: str | None
    limit: int | None

    def rows(self, index) -> np.ndarray:
        """Return their rows of the index, ascending."""
        rows = np.arange(len(index))
        if self.scenes:
            wanted = [scene.strip() for scene in self.scenes.split(",") if scene.strip()]
            unknown = sorted(set(wanted) - set(index.scenes()))
            check(
                not unknown,
                f"--scenes: must be scenes of the index, got '{', '.join(unknown)}'; "
                f"it has {', '.join(index.scenes()[:5])}, ... ({len(index.scenes())} in all)",
            )
            numbers = {index.scenes().index(scene) for scene in wanted}
            rows = np.array([row for row in rows if index.scene_number(int(row)) in numbers], int)
        return rows[: self.limit] if self.limit else rows


@dataclass(frozen=True)
class Running:
    """Where blocks are computed and what a frame may cost."""

    scheduler: str
    frame_timeout_s: float
    retries: int
    memory_gb: float | None
    device: str

    def where(self) -> "Where":
        """Return the scheduler, read."""
        from pipeline.scheduler import parse_scheduler

        return parse_scheduler(self.scheduler)

    def limits(self) -> "Limits":
        """Return what a frame may cost."""
        from pipeline.job import Limits

        return Limits(self.frame_timeout_s, self.retries, self.memory_gb)


PLACE_OPTIONS = (
    click.option("--root", type=str, help="Folder of the recordings [else <DATASET>_ROOT]."),
    click.option("--version", help="Version folder; for synthetic SIZE or SIZE-SEED."),
    click.option("--stores", type=Path, default=Path("stores"), help="Folder for all stores."),
)
data_options = gathered(
    "data",
    Data,
    click.option("--dataset", default=CITY, help="Name of a manifest in data_manifests/."),
    *PLACE_OPTIONS,
)
frame_options = gathered(
    "chosen",
    Chosen,
    click.option("--scenes", help="Comma-separated scenes; whole blocks that contain them."),
    click.option("--limit", type=click.IntRange(1), help="At most this many frames."),
)
run_options = gathered(
    "running",
    Running,
    click.option(
        "--scheduler", default="serial", help="serial, local[:n], tcp://host:port, slurm:file."
    ),
    click.option(
        "--frame-timeout", "frame_timeout_s", type=click.FloatRange(1), default=600.0,
        help="Seconds after which a frame counts as hung.",
    ),
    click.option(
        "--retries", type=click.IntRange(0), default=1,
        help="Times that a frame which raised, hung or killed its process is tried again.",
    ),
    click.option(
        "--worker-memory", "memory_gb", type=click.FloatRange(0.5),
        help="GB of private memory of a worker [what the machine has].",
    ),
    click.option("--device", default="cpu", help="Torch device of model-based sources."),
)  # fmt: skip

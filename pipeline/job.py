"""What travels between a command and its workers: jobs and tasks out, small reports back.

No array does: workers read recordings and write shards themselves.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.schema import ArraySpec

EXIT_MEMORY = 86  # exit code of a child that could not get the memory it asked for


@dataclass(frozen=True)
class Limits:
    """What a frame may cost before it is given up."""

    frame_timeout_s: float = 600.0  # SAM's largest model takes 8 minutes an image on a CPU
    retries: int = 1  # times that a frame which raised, hung or killed its process is tried again
    memory_gb: float | None = None  # private memory of a worker; None = what the machine has


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to open its context; small and picklable."""

    stage: str
    dataset: str
    root: Path
    index_path: Path
    store_path: Path
    source_name: str
    config: Any
    arrays: tuple[ArraySpec, ...]
    store_id: str  # of the store that the command opened; a rebuilt one is refused
    device: str = "cpu"
    limits: Limits = Limits()

    @property
    def needs_gpu(self) -> bool:
        """Whether its worker must own a GPU."""
        return self.stage == "superpixels" and self.device.startswith("cuda")


@dataclass(frozen=True)
class Quarantined:
    """A frame that could not be computed; its slot holds the fill values."""

    row: int
    frame_id: str
    reason: str  # the error's own line
    traceback: str


@dataclass(frozen=True)
class BlockTask:
    """One block to compute."""

    block: int
    skip: tuple[Quarantined, ...] = ()  # frames already given up
    only: tuple[int, ...] | None = None  # recompute these rows, the others from the verified shard


@dataclass(frozen=True)
class BlockReport:
    """What came of one block; travels back from workers instead of arrays."""

    block: int
    num_frames: int  # computed now
    quarantined: tuple[Quarantined, ...]
    seconds: float
    outcome: Literal["done", "found done", "busy"] = "done"  # the others: another command's work
    segments: tuple[int, ...] = ()  # superpixels of each image computed now

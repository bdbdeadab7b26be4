"""What runs on a Dask worker: it keeps child processes and hands blocks to them.

Frames are computed in children (child.py), so that one which kills its process does not take the
worker down. A child lives from task to task, model loaded, until another job comes.
"""

import os
import pickle
import threading
from dataclasses import dataclass
from pathlib import Path

from pipeline.child import REPOSITORY, Child
from pipeline.errors import UserError
from pipeline.files import sha256
from pipeline.job import BlockReport, BlockTask, Job

_idle: dict[bytes, list[Child]] = {}  # pickled job -> children that wait for a task
_mutex = threading.Lock()


@dataclass(frozen=True)
class Facts:
    """What a worker must agree with its client about."""

    code: str  # hash of our source files
    num_gpus: int
    missing: tuple[str, ...]  # paths that it cannot see


def code_hash() -> str:
    """Return a hash of every source file and manifest of stage one."""
    files = sorted(
        [*REPOSITORY.glob("pipeline/**/*.py"), *REPOSITORY.glob("data_manifests/**/*.yaml")]
    )
    names = [(str(path.relative_to(REPOSITORY)), sha256(path.read_bytes())) for path in files]
    return sha256(repr(names).encode())[:16]


def find_facts(paths: tuple[Path, ...], count_gpus: bool) -> Facts:
    """Return the facts of the worker that this runs on."""
    missing = tuple(str(path) for path in paths if not path.exists())
    return Facts(code_hash(), num_gpus() if count_gpus else 0, missing)


def num_gpus() -> int:
    """Return the number of GPUs that this process sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip()])
    import torch

    return torch.cuda.device_count()


def compute_remotely(payload: bytes, task: BlockTask) -> BlockReport:
    """Compute a block in a child of this worker."""
    child = _take(payload)
    report = child.compute(task)  # after an error it is stopped and must not be kept
    _keep(payload, child)
    return report


def survives_remotely(payload: bytes, row: int) -> bool:
    """Compute one frame alone, writing nothing; for frames that may kill a whole worker."""
    child = _take(payload)
    survived = child.survives(row)
    _keep(payload, child)
    return survived


def release(payload: bytes) -> None:
    """Stop the children of a job, so that models leave the memory of a worker that stays."""
    with _mutex:
        children = _idle.pop(payload, [])
    for child in children:
        child.stop()


def _take(payload: bytes) -> Child:
    with _mutex:
        stale = [other for other in _idle if other != payload]
        waiting = _idle.setdefault(payload, [])
        child = waiting.pop() if waiting else None
    for other in stale:  # of a run whose client was killed, or of the stage before
        release(other)
    return child or Child(_job(payload))


def _keep(payload: bytes, child: Child) -> None:
    with _mutex:
        _idle.setdefault(payload, []).append(child)


def _job(payload: bytes) -> Job:
    try:
        return pickle.loads(payload)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"worker: must have what the job needs, got '{error}'; start it in the environment "
            "that the command runs in"
        ) from error

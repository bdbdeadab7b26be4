"""What a run says while it runs: metrics.jsonl, TensorBoard, a progress line, a last word.

In: each step's losses. Out: metrics.jsonl holds only what is the same whenever the run is repeated;
times and memory, which are not, go to TensorBoard and the progress line. Only the first process of
several says anything, of the means over all.
"""

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from pipeline.progress import Progress
from train.batch import Batch
from train.knn import Look
from train.parallel import Team
from train.run_folder import append_metrics

STARVED = 0.3  # a share of the time spent waiting for data that calls for more workers


class RunLog:
    """The log of one process; a context, since files must be closed."""

    def __init__(self, folder: Path, team: Team, first_step: int, last_step: int) -> None:
        self.folder, self.team = folder, team
        self.progress = Progress("pretrain", last_step - first_step, "steps")
        self.writer: SummaryWriter | None = None
        if team.is_first:
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)
        self.waited_s = self.total_s = 0.0  # of the whole run
        self.waiting = 0.0  # share of the last step
        self.num_unpaired = 0

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is None:
            return
        self.writer.close()
        share = self.waited_s / self.total_s if self.total_s else 0.0
        note = f"{share:.0%} of it waiting for data, peak memory {peak_memory_mb():.0f} MB"
        if self.num_unpaired:
            note += f", {self.num_unpaired} samples without a pair"
        self.progress.close(note)
        if share > STARVED:
            print(
                f"[pretrain] {share:.0%} of the time went into waiting for data; more --workers "
                "may help",
                file=sys.stderr,
            )

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches; measures how much of each step's time goes by until one is there."""
        source = iter(batches)
        while True:
            start_s = time.perf_counter()
            batch = next(source, None)
            if batch is None:
                return
            waited_s = time.perf_counter() - start_s
            self._begin_s, self._waited_s = start_s, waited_s
            yield batch

    def step(
        self, epoch: int, step: int, lr: float, batch: Batch, values: dict[str, float]
    ) -> None:
        """Log one step, just taken."""
        step_s = time.perf_counter() - self._begin_s
        self.waited_s, self.total_s = self.waited_s + self._waited_s, self.total_s + step_s
        counts = self.team.sums([batch.num_fallbacks, batch.num_unpaired])
        fallbacks, unpaired = (int(count) for count in counts)
        self.num_unpaired += unpaired
        if self.writer is None:
            return
        line = {"epoch": epoch, "step": step, "lr": lr, **values, "fallbacks": fallbacks}
        append_metrics(self.folder, line | ({"unpaired": unpaired} if unpaired else {}))
        shown = {
            **{f"pretrain/{name}": value for name, value in values.items()},
            "pretrain/lr": lr,
            "time/step_s": step_s,
            "time/waiting_for_data": self._waited_s / step_s,
            "memory/peak_mb": peak_memory_mb(),
        }
        for name, value in shown.items():
            self.writer.add_scalar(name, value, step)
        note = " ".join(f"{name} {value:.3f}" for name, value in values.items())
        self.progress.advance(1, f"{note}, waiting {self.waited_s / self.total_s:.0%}")

    def look(self, step: int, found: Look | None) -> None:
        """Log a quick look at the features; nothing where there was nothing to look at."""
        if self.writer is None or found is None:
            return
        self.writer.add_scalar("knn/miou", found.miou, step)
        self.writer.add_scalar("knn/accuracy", found.accuracy, step)
        for number, picture in enumerate(found.pictures):
            self.writer.add_image(f"knn/truth_prediction_{number}", picture, step)


def peak_memory_mb() -> float:
    """Return the most memory held so far, MB: torch's on a GPU, else this process's resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

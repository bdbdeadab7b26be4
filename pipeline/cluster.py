"""Where blocks are computed: workers of this machine, of a scheduler that runs, or of SLURM.

A cluster is a Dask client with what run.py asks of it: how many blocks may be in flight, whether
the scheduler still stands. Workers are let in only where they run our code, see the same files and,
for a job that needs one, own a GPU; a task that nobody can take would wait for ever.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster

from pipeline.errors import UserError, check
from pipeline.job import Job
from pipeline.remote import Facts, code_hash, find_facts, num_gpus, release
from pipeline.scheduler import Where
from pipeline.slurm import open_slurm

LOOPBACK = "127.0.0.1"
REFRESH_S = 5.0  # how often the workers are counted; a call to the scheduler each time
REMIND_S = 60.0  # how often we say that there are none
CONNECT_TIMEOUT_S = 10
RESTART_S = 15.0  # that a nanny may take to start its worker again


@dataclass(frozen=True)
class _Worker:
    num_threads: int
    num_gpus: int  # resource, as the scheduler counts it


class Cluster:
    """A connected cluster."""

    def __init__(self, client: Client, may_be_empty: bool) -> None:
        """Connect.

        Args:
            client: of its scheduler.
            may_be_empty: whether workers may come later, as jobs of a queue do.
        """
        self.client = client
        self.address = client.scheduler.address
        self.may_be_empty = may_be_empty
        self._workers: dict[str, _Worker] = {}
        self._counted_s = self._reminded_s = float("-inf")

    def num_slots(self, job: Job) -> int:
        """Return how many blocks of a job may be in flight: one per thread (or GPU) of a worker.

        Raises:
            UserError: no worker can take the job, or one runs other code or sees other files.
        """
        if time.monotonic() - self._counted_s > REFRESH_S:
            self._count(job)
            self._counted_s = time.monotonic()
        workers = self._workers.values()
        if not job.needs_gpu:
            return sum(worker.num_threads for worker in workers)
        slots = sum(min(worker.num_threads, worker.num_gpus) for worker in workers)
        check(
            slots > 0 or self.may_be_empty or not workers,
            f"{self.address}: some worker must offer a GPU for device '{job.device}', got "
            f"{len(self._workers)} workers with none; start workers with --resources GPU=1",
        )
        return slots

    def note(self) -> str:
        """Return what progress says beside the rate."""
        return f"{len(self._workers)} workers"

    def check_alive(self) -> None:
        """Refuse to wait for a scheduler that has gone.

        Raises:
            UserError: it has.
        """
        check(
            self.client.status == "running",
            f"{self.address}: scheduler must run, got no connection; done blocks stay done, start "
            "it and its workers and run the same command again",
        )

    def expect_workers(self, job: Job) -> None:
        """Check before a stage starts that somebody can take its blocks.

        A worker that was killed just before is started again by its nanny.
        """
        until = time.monotonic() + RESTART_S
        self._counted_s = float("-inf")
        while not (slots := self.num_slots(job)) and time.monotonic() < until:
            time.sleep(0.5)
            self._counted_s = float("-inf")
        check(
            slots > 0 or self.may_be_empty,
            f"{self.address}: a worker must be there, got none; start one with "
            f"'dask worker {self.address} --nthreads 1'",
        )

    def release(self, payload: bytes) -> None:
        """Let the workers drop a job's children."""
        with contextlib.suppress(OSError):
            self.client.run(release, payload, on_error="ignore")

    def _count(self, job: Job) -> None:
        """Count the workers and check those that are new."""
        self.check_alive()
        try:
            identity = self.client.sync(self.client.scheduler.identity, n_workers=-1)
        except OSError:
            self.check_alive()
            return
        found = {a: w for a, w in identity["workers"].items() if w["status"] == "running"}
        for gone in self._workers.keys() - found.keys():
            del self._workers[gone]
        if not found and time.monotonic() - self._reminded_s > REMIND_S:
            self._reminded_s = time.monotonic()
            print(f"{self.address}: waiting for workers", file=sys.stderr, flush=True)
        new = [address for address in found if address not in self._workers]
        if not new:
            return
        paths = (job.store_path, job.index_path, job.root)
        answers = self.client.run(find_facts, paths, job.needs_gpu, workers=new, on_error="return")
        for address, facts in answers.items():
            if isinstance(facts, OSError):
                continue  # it died meanwhile
            self._check_facts(found[address], address, facts, job)
            gpus = int(found[address]["resources"].get("GPU", 0))
            self._workers[address] = _Worker(found[address]["nthreads"], gpus)

    def _check_facts(self, worker: dict, address: str, facts: Facts | Exception, job: Job) -> None:
        where = f"worker {address} on {worker['host']}"
        advice = "start it in the folder and environment that the command runs in"
        if isinstance(facts, Exception):
            raise UserError(f"{where}: must be able to import our code, got '{facts}'; {advice}")
        check(
            facts.code == code_hash(),
            f"{where}: must run our code {code_hash()}, got {facts.code}; {advice}, again after "
            "each change",
        )
        check(
            not facts.missing,
            f"{where}: must see the files of this run, got none at {', '.join(facts.missing)}; "
            "keep recordings and stores on a file system that all machines share",
        )
        check(
            not (job.needs_gpu and worker["resources"].get("GPU")) or facts.num_gpus == 1,
            f"{where}: must see one GPU, got {facts.num_gpus}; start one worker per GPU with "
            "CUDA_VISIBLE_DEVICES set",
        )


@contextlib.contextmanager
def open_cluster(where: Where, device: str) -> Iterator[Cluster]:
    """Yield a cluster; one that we start is stopped at the end.

    Args:
        where: which.
        device: torch device of model-based sources; local workers own one GPU each for 'cuda'.

    Raises:
        UserError: no scheduler answers, or there are fewer GPUs than local workers.
    """
    for name in ["distributed", *logging.Logger.manager.loggerDict]:
        if name.split(".")[0] == "distributed":  # we say what matters, in one line
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        if where.kind == "local":
            target = stack.enter_context(_open_local(where.workers, device))
        elif where.kind == "slurm":
            target = stack.enter_context(open_slurm(where.path))
        else:
            target = where.address
        try:
            client = stack.enter_context(
                Client(target, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"{target}: a Dask scheduler must answer, got '{str(error).splitlines()[0]}'; "
                "start one with 'dask scheduler', or correct SCHEDULER="
            ) from error
        print(f"dashboard: {client.dashboard_link}", file=sys.stderr, flush=True)
        yield Cluster(client, may_be_empty=where.kind == "slurm")


def _open_local(num_workers: int, device: str) -> SpecCluster:
    """Start one process per worker on this machine, listening on the loopback interface only."""
    gpus = _own_gpus(num_workers) if device.startswith("cuda") else [None] * num_workers
    workers = {
        number: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "host": LOOPBACK,
                "silence_logs": logging.CRITICAL,
                "memory_limit": 0,  # arrays live in the children; --worker-memory limits those
                "resources": {} if gpu is None else {"GPU": 1},
                "env": {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu},
            },
        }
        for number, gpu in enumerate(gpus)
    }
    options = {
        "host": LOOPBACK,
        "port": 0,
        "dashboard_address": f"{LOOPBACK}:0",
        "allowed_failures": 1,  # deaths of its workers before a task counts as suspect
    }
    # a nanny starts its worker again when that dies; by default SpecCluster ends nannies whose
    # worker happens to be away 15 s after a death, and a run would wait for ever
    dask.config.set({"distributed.deploy.lost-worker-timeout": "365 days"})
    scheduler = {"cls": Scheduler, "options": options}
    return SpecCluster(workers, scheduler, silence_logs=logging.CRITICAL)


def _own_gpus(num_workers: int) -> list[str]:
    count = num_gpus()
    check(
        num_workers <= count,
        f"SCHEDULER=local:{num_workers}: must have a GPU per worker, got {count}; several "
        f"processes on one are slower than one, use local:{count or 1}",
    )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return names[:num_workers]

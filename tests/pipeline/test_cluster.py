"""A real Dask cluster: it is killed piece by piece, its GPUs are counted, its code is compared."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from tests.pipeline import poison
from tests.pipeline.commands import (
    REPOSITORY,
    assert_equal,
    content,
    finish,
    markers,
    start,
    wait_for_markers,
)


class Cluster:
    """`dask scheduler` and `dask worker` in processes of their own, as users start them."""

    def __init__(self, *worker_options, env=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.worker_options, self.env = worker_options, env or {}
        self.scheduler = self.worker = None

    def start(self):
        """Start what does not run."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            port = ("--port", str(self.port), "--no-dashboard")
            self.scheduler = self._python("distributed.cli.dask_scheduler", *port)
        if self.worker is None or self.worker.poll() is not None:
            options = ("--nthreads", "1", "--no-dashboard", *self.worker_options)
            self.worker = self._python("distributed.cli.dask_worker", self.address, *options)

    def _python(self, module, *options):
        return subprocess.Popen(
            [sys.executable, "-m", module, "--host", "127.0.0.1", *options],
            cwd=REPOSITORY,
            env={**os.environ, **self.env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def worker_process(self):
        """Return the process that computes, below the nanny."""
        for child in psutil.Process(self.worker.pid).children():
            if "resource_tracker" not in " ".join(child.cmdline()):
                return child
        return None

    def stop(self):
        self.end(self.worker, self.scheduler)

    def end(self, *processes):
        for process in processes:
            if process is not None and process.poll() is None:
                family = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                for child in family:
                    child.kill()
                process.wait()


@pytest.fixture
def cluster(request):
    made = []

    def make(*options, env=None):
        made.append(Cluster(*options, env=env))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()


def wait_for_workers(cluster, count=1):
    """Wait for workers; one that found no scheduler in time has ended, so it is started again."""
    from distributed import Client
    from distributed.exceptions import WorkerStartTimeoutError

    for patience_s in (60, 120, 240):
        try:
            with Client(cluster.address, timeout=60, set_as_default=False) as client:
                client.wait_for_workers(count, timeout=patience_s)
            return
        except WorkerStartTimeoutError:
            cluster.end(cluster.worker)
            cluster.start()
    raise AssertionError(f"{cluster.address}: no worker came")


def kill(what, cluster, client):
    if what == "worker":
        cluster.worker_process().kill()
    elif what == "scheduler":
        cluster.scheduler.send_signal(signal.SIGKILL)
        cluster.scheduler.wait()
    else:
        os.kill(client.pid, signal.SIGKILL)


def check_round(what, process):
    """Wait for the client of a round and check how it took the kill."""
    error = process.communicate()[1]
    assert "Traceback" not in error, error
    if what == "worker":
        assert process.returncode == 0, error  # it goes on by itself
    elif what == "scheduler":
        assert process.returncode == 2, error
        assert "scheduler must run, got no connection; done blocks stay done" in error


def kill_rounds(cluster, city, tmp_path, rounds, seed):
    """Kill worker, scheduler and client in turns at random moments, and rerun."""
    rng, whole, stores = np.random.default_rng(seed), tmp_path / "whole", tmp_path / "killed"
    finish(start(city, whole))
    expected, num_blocks, struck = content(whole), len(markers(whole)), 0
    slow = poison.environment({"*": "slow"}, tmp_path)  # 0.3 s a frame: a kill meets work
    cluster = cluster(env=slow)
    for number in range(rounds):
        what = ("worker", "scheduler", "client")[number % 3]
        cluster.start()
        wait_for_workers(cluster)
        done_before = markers(stores)
        process = start(city, stores, "--scheduler", cluster.address)
        wanted = len(done_before) + 1
        wait_for_markers(stores, rng.integers(wanted, max(num_blocks, wanted + 1)), process)
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is None:
            kill(what, cluster, process)
            struck += 1
            check_round(what, process)
        if what == "scheduler":
            cluster.end(cluster.worker)  # it would go by itself, some time
        done_after = markers(stores)
        assert done_before.items() <= done_after.items(), "a done block was done again"
        if len(done_after) == num_blocks:
            shutil.rmtree(stores)
    cluster.start()
    wait_for_workers(cluster)
    finish(start(city, stores, "--scheduler", cluster.address))
    assert_equal(stores, expected)
    assert struck >= rounds // 2


def test_three_kills_of_worker_scheduler_and_client(cluster, city, tmp_path):
    kill_rounds(cluster, city, tmp_path, rounds=3, seed=0)


@pytest.mark.slow
def test_twenty_kills_of_worker_scheduler_and_client(cluster, city, tmp_path):
    kill_rounds(cluster, city, tmp_path, rounds=20, seed=1)


@pytest.mark.slow
def test_one_block_at_a_time_per_gpu_and_one_model_per_worker(cluster, city, tmp_path):
    """Two threads and one GPU, made up: blocks must not overlap and share one child."""
    notes = tmp_path / "notes"
    notes.mkdir()
    env = {**poison.environment({"*": "slow"}, notes), "CUDA_VISIBLE_DEVICES": "0"}
    one = cluster("--nthreads", "2", "--resources", "GPU=1", env=env)
    wait_for_workers(one)
    gpu = ("--device", "cuda", "--scheduler", one.address)
    finish(start(city, tmp_path / "s", *gpu, stages=("superpixels",)))
    spans = sorted(tuple(map(float, p.read_text().split())) for p in notes.iterdir())
    assert len(spans) == 8
    assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:], strict=False))
    assert len({p.name.partition("-")[0] for p in notes.iterdir()}) == 1


@pytest.mark.slow
def test_workers_that_cannot_do_the_job_are_refused(cluster, city, tmp_path):
    copy = tmp_path / "copy"
    for name in ("pipeline", "data_manifests"):
        shutil.copytree(REPOSITORY / name, copy / name)
    (copy / "pipeline" / "regions.py").open("a").write("# another version\n")

    def error(address, *arguments):
        process = start(city, tmp_path / "s", "--scheduler", address, *arguments,
                        stages=("superpixels",))  # fmt: skip
        text = process.communicate()[1]
        assert process.returncode == 2, text
        [line] = [line for line in text.splitlines() if line.startswith("error: ")]
        return line

    usual = cluster()
    wait_for_workers(usual)
    assert "some worker must offer a GPU" in error(usual.address, "--device", "cuda")
    usual.worker.kill()
    assert "a worker must be there, got none" in error(usual.address)
    usual.scheduler.kill()
    assert "a Dask scheduler must answer" in error(usual.address)
    other = cluster(env={"PYTHONPATH": str(copy), "PYTHONSAFEPATH": "1"})
    wait_for_workers(other)
    assert "must run our code" in error(other.address)
    without = cluster(env={"PYTHONPATH": "", "PYTHONSAFEPATH": "1"})
    wait_for_workers(without)
    assert "must be able to import our code" in error(without.address)


def listening(process):
    """Return the (address, port) that a process and those below it listen at now."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(process.pid)
        for each in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # it asked git for a commit, say
                connections = each.net_connections()
                found |= {c.laddr for c in connections if c.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.slow
def test_a_local_cluster_listens_on_this_machine_only(city, tmp_path):
    slow = poison.environment({"*": "slow"}, tmp_path)
    process = start(city, tmp_path / "s", "--scheduler", "local:2", env=slow)
    found = set()
    while process.poll() is None:
        found |= listening(process)
        time.sleep(0.1)
    error = finish(process)
    assert len(found) >= 4  # scheduler, dashboard, nannies, workers
    assert {place.ip for place in found} == {"127.0.0.1"}
    assert "dashboard: http://127.0.0.1:" in error


@pytest.mark.slow
def test_slurm_runs_what_the_queue_starts(city, tmp_path):
    """`sbatch` made up: as the real one, it takes a copy of the script, which is soon gone."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "sbatch").write_text(
        f'#!/bin/bash\ncp "$1" {tmp_path}/job-$$\n'
        f"bash {tmp_path}/job-$$ >/dev/null 2>&1 &\necho $!\n"
    )
    (bin_ / "scancel").write_text("#!/bin/bash\nkill $1\n")
    for name in ("sbatch", "scancel"):
        (bin_ / name).chmod(0o755)
    path = tmp_path / "slurm.yaml"
    path.write_text('jobs: 2\ninterface: lo\ncores: 1\nmemory: 2GB\nwalltime: "01:00:00"\n')
    env = {"PATH": f"{bin_}:{os.environ['PATH']}"}
    whole = tmp_path / "whole"
    finish(start(city, whole))
    finish(start(city, tmp_path / "s", "--scheduler", f"slurm:{path}", env=env))
    assert_equal(tmp_path / "s", content(whole))

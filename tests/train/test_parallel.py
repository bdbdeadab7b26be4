"""Two processes on the CPU against one, and what happens when one of them has trouble."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from tests.conftest import REPOSITORY
from tests.train.small_runs import SMALL, paths_of, small_recipe
from tests.train.test_resume import assert_same_run
from train.contrast import info_nce_to
from train.loader import batch_keys, epoch_batches, num_batches
from train.mixture import Part, mixed_order
from train.parallel import Team, gather_rows, join_team, own_device, refuse_data_parallel
from train.run_folder import read_metrics
from train.stores import StorePaths
from train.trainer import Machine, Training, count_steps
from train.training import NotFinite

pytestmark = pytest.mark.usefixtures("one_thread")
NATIVE = Machine("native")
TEAMS = [Team(rank, 2) for rank in range(2)]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def in_two_processes(function, folder):
    """Run function(team) in two forked processes; return what each returned.

    Forked, since a fresh one takes seconds to import torch; they must not read a store.
    """
    port = free_port()

    def child(rank):
        os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
        try:
            with join_team("cpu") as (team, _):
                torch.save(function(team), folder / f"{rank}.pt")
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    processes = [
        multiprocessing.get_context("fork").Process(target=child, args=(r,)) for r in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.fixture(scope="module")
def halves(stores):
    """The two halves of each of two batches of two frames."""
    recipe = small_recipe("batch_size=1")
    singles = list(epoch_batches(paths_of(stores), recipe, np.arange(4), 0, 0))
    return [singles[start : start + 2] for start in (0, 2)]


def step_by_halves(training, batches, generators):
    """Take one step down the mean of the losses of both parts of a batch, in one process."""
    weights, total = training.recipe.losses.weights, 0.0
    for batch, generator in zip(batches, generators, strict=True):
        training.generator = generator
        terms = training.losses(batch)
        total = total + sum(weights[n] * term.value for n, term in terms.items()) / 2
    training.optimizer.zero_grad(set_to_none=True)
    total.backward()
    training.optimizer.step()
    return total.item()


def test_two_processes_equal_one_that_averages_the_losses_of_the_halves(halves, tmp_path):
    recipe = small_recipe("batch_size=2")

    def train(team):
        training = Training(recipe, NATIVE, team)
        training.start_epoch(0)
        losses = [training.step(batches[team.rank])["loss"] for batches in halves]
        own, state = training.generator.get_state(), training.state()
        assert state["generator"].shape == (2, *own.shape)
        training.generator.manual_seed(99)
        training.load(state, "here")
        assert torch.equal(training.generator.get_state(), own)
        return losses, training.network.state_dict(), training.head.state_dict()

    found = in_two_processes(train, tmp_path)
    alone = Training(recipe, NATIVE)
    alone.start_epoch(0)
    generators = [torch.Generator().manual_seed(recipe.seed + rank) for rank in (0, 1)]
    losses = [step_by_halves(alone, batches, generators) for batches in halves]
    # float32 sums in another order: DDP adds (a + b) / 2 per parameter, autograd as it goes
    assert found[0][0] == pytest.approx(losses, rel=1e-5)
    assert found[0][0] == found[1][0]
    for name, value in alone.network.named_parameters():
        torch.testing.assert_close(found[0][1][name], value.data, rtol=1e-4, atol=1e-6)
        assert torch.equal(found[0][1][name], found[1][1][name]), name
    for name, value in alone.head.named_parameters():
        torch.testing.assert_close(found[0][2][name], value.data, rtol=1e-4, atol=1e-6)


def test_trouble_in_one_process_hangs_none(halves, tmp_path):
    """Nothing to contrast on one side is zero; a NaN on one side stops both."""
    recipe = small_recipe("batch_size=2", "losses.superpixel_nce.gather=true")
    none = torch.zeros(0, dtype=torch.int64)
    columns = ("pair_voxel", "pair_image", "pair_row", "pair_col")

    def train(team):
        training = Training(recipe, NATIVE, team)
        training.start_epoch(0)
        batch = halves[0][team.rank]
        if team.rank == 1:
            clouds = [replace(c, rows=none, segment=none) for c in batch.frames[:1]]
            batch = replace(batch, frames=tuple(clouds), **dict.fromkeys(columns, none))
        first = training.step(batch)
        gradients = [p.grad.clone() for p in training.network.parameters()]
        if team.rank == 1:
            with torch.no_grad():
                training.network.final.kernel.fill_(float("nan"))
        try:
            training.step(halves[1][team.rank])
        except NotFinite as error:
            return first, gradients, str(error), gather_rows(torch.full((team.rank, 2), 3.0))

    [first, gradients, error, rows], [other, same, other_error, other_rows] = in_two_processes(
        train, tmp_path
    )
    assert first == other and first["superpixel_nce"] > 0
    parts = [value for name, value in first.items() if name != "loss"]
    assert first["loss"] == pytest.approx(sum(parts) / 2)
    assert all(torch.equal(a, b) for a, b in zip(gradients, same, strict=True))
    assert "got not finite in another process" in error and "got nan" in other_error
    assert rows.tolist() == [[3.0, 3.0]] and other_rows.tolist() == []


def test_candidates_of_others_only_enter_the_denominator():
    anchors, candidates = torch.eye(3)[:2], torch.eye(3)[:2]
    target = torch.arange(2)
    found = info_nce_to(anchors, candidates, target, 1.0, negatives=torch.eye(3))
    e = np.e  # each anchor: itself twice (its own and a foreign twin), three others at 0
    assert found.item() == pytest.approx(-np.log(e / (2 * e + 3)))
    assert gather_rows(torch.ones(4, 2)).shape == (0, 2)


def test_shares_are_disjoint_and_complete():
    for count in range(9):
        for size in (1, 2, 3, 4):
            places = [list(range(count))[Team(r, size).share(count)] for r in range(size)]
            assert sum(places, []) == list(range(count))
            assert max(map(len, places)) - min(map(len, places)) <= 1


def test_processes_walk_one_order_and_the_rest_of_an_epoch_is_split_or_dropped():
    recipe = small_recipe("batch_size=4")
    for count, rest in ((11, 3), (10, 2), (9, 0), (8, 0)):
        parts = (Part(StorePaths(Path("x")), np.arange(count)),)
        order = mixed_order([parts[0].rows], (), recipe.seed, 3)
        keys = [list(batch_keys(parts, recipe, 3, team)) for team in TEAMS]
        assert len(keys[0]) == len(keys[1]) == num_batches(count, 4, 2)
        both = [key for batches in zip(*keys, strict=True) for part in batches for key in part]
        assert [key[1] for key in both] == list(range(8 + rest))  # one left alone is dropped
        assert [key[2:] for key in both] == order[: 8 + rest]
        assert all(batches for rank in keys for batches in rank)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(UserError, match="batch_size: must be a multiple of the 3 processes, got 4"):
        count_steps(100, small_recipe("batch_size=4"), Team(0, 3))
    with pytest.raises(UserError, match="must have a frame per process, got 1 for 2"):
        count_steps(1, small_recipe("batch_size=4"), Team(0, 2))


def test_data_parallel_and_shared_devices_are_refused():
    with pytest.raises(UserError, match="must not be in DataParallel.*use torchrun"):
        refuse_data_parallel(nn.Sequential(nn.DataParallel(nn.Linear(1, 1))))
    with pytest.raises(UserError, match="--device: must be one device, got cuda:0,1"):
        with join_team("cuda:0,1"):
            pass
    with pytest.raises(UserError, match="must be cuda under torchrun, got cuda:0"):
        own_device("cuda:0", 0)
    assert own_device("cpu", 5) == "cpu"


def torchrun(stores, runs, run, log, *more):
    """Start a run of two processes; 16 steps, checkpoints after each."""
    settings = [*SMALL, "epochs=8", "losses.superpixel_nce.gather=true", *more]
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
             "-m", "--", "train", "pretrain", "--stores", str(stores), "--runs", str(runs),
             "--run", run, "--source", "oracle", "--recipe", "seal_small", "--save-every", "1",
             "--engine", "native", "--workers", "1",
             *(part for setting in settings for part in ("--set", setting))]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONFAULTHANDLER": "1"}
    return subprocess.Popen(words, env=environment, stdout=log, stderr=log)


def trainers(parent):
    """Return the process ids by rank of the trainers that a torchrun started."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"\nPPid:\t{parent}\n" in (entry / "status").read_text():
                rank = re.search(r"\x00RANK=(\d+)\x00", (entry / "environ").read_text())
                if rank:
                    found[int(rank.group(1))] = int(entry.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("who", ["one process", "torchrun"])
def test_a_killed_process_ends_the_job_and_the_rerun_equals_one_in_one_go(stores, tmp_path, who):
    runs, log = tmp_path / "runs", tmp_path / "log"
    with log.open("w") as file:
        assert torchrun(stores, runs, "whole", file).wait() == 0, log.read_text()
        assert len(read_metrics(runs / "whole")) == 16
    with log.open("w") as file:
        process = torchrun(stores, runs, "cut", file)
        while len(read_metrics(runs / "cut")) < 5:
            assert process.poll() is None, log.read_text()
            time.sleep(0.005)
        if who == "torchrun":
            process.send_signal(signal.SIGTERM)
        else:
            os.kill(trainers(process.pid)[1], signal.SIGKILL)
        assert process.wait(120) != 0
    text = log.read_text()
    if who == "torchrun":
        assert "stopped and saved after step" in text
    else:
        assert re.search(r"rank\s*:\s*1\b", text) and "SIGKILL" in text, text
    assert len(read_metrics(runs / "cut")) < 16
    with log.open("w") as file:
        assert torchrun(stores, runs, "cut", file).wait() == 0, log.read_text()
    assert_same_run(runs / "whole", runs / "cut")

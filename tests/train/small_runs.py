"""What the tests of training share: the tiny city's stores, a recipe of seconds, commands."""

import sys
from pathlib import Path

import pytest
import torch

from pipeline.config import override
from pipeline.errors import run_main
from tests.conftest import Outcome
from train.recipes import Recipe, load_recipe
from train.stores import StorePaths

FOLDER = "synthetic-tiny"
SMALL = (
    "teacher.weights=none",
    "network.widths=8,8,8,8,8,8,8,8,8",
    "network.out_channels=16",
    "voxels.size_m=0.5",
    "augment.height=56",
    "augment.width=104",
    "batch_size=2",
    "epochs=2",
    "optimizer.lr=0.05",
)


def small_recipe(*settings: str, name: str = "seal_small") -> Recipe:
    return override(load_recipe(name), [*SMALL, *settings])


def paths_of(stores: Path) -> StorePaths:
    return StorePaths(stores / FOLDER, "oracle")


@pytest.fixture
def one_thread():
    """One torch thread: two of a busy machine's cost these small networks many times the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def here(monkeypatch, capfd, tmp_path, one_thread):
    """Return a function that runs a command group in this process, in a temporary folder."""

    def run(group, *arguments: object) -> Outcome:
        monkeypatch.setattr("train.trainer.set_threads", lambda: None)
        monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        code = 0
        try:
            run_main(group)
        except SystemExit as exit_:
            code = exit_.code or 0
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run

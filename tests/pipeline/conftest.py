"""Shared by the tests of stage one: commands in this process, blocks of two frames."""

import dataclasses
import sys

import pytest

from pipeline import graph
from pipeline.__main__ import main
from pipeline.errors import run_main
from tests.conftest import Outcome


@pytest.fixture(scope="session")
def drive(city):
    """The tiny city as arrays: two scenes of seven scans, for the writers of other formats."""
    from tests.pipeline.datasets.writers.drive import record

    return record(city)


@pytest.fixture
def stage_one(monkeypatch, capfd, tmp_path):
    """Return a function that runs a command in this process (its workers are real ones)."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        code = 0
        try:
            run_main(main)
        except SystemExit as exit_:
            code = exit_.code or 0
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut new stores into blocks of two frames, so that the tiny city has four a stage."""
    for name, stage in graph.STAGES.items():
        monkeypatch.setitem(graph.STAGES, name, dataclasses.replace(stage, frames_per_block=2))

"""Shared by all tests: the tiny city, made once, and commands run as a user runs them."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# a busy machine is no bug; under CI hypothesis repeats the same examples by itself
settings.register_profile(
    "patient", settings.get_profile(settings.get_current_profile_name()), deadline=None
)
settings.load_profile("patient")

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """Return its one error line; a traceback or a second error is a failure."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0]


@pytest.fixture(scope="session")
def city(tmp_path_factory) -> Path:
    """The tiny synthetic city, seed 0; tests that change it copy it first."""
    from pipeline.synthetic.write import synthesize

    root = tmp_path_factory.mktemp("city") / "tiny"
    synthesize(root, "tiny", 0)
    return root


@pytest.fixture(scope="session")
def stores(city) -> Path:
    """The folder with the tiny city's stores, oracle superpixels; copy it before changing it."""
    from pipeline.__main__ import main

    folder = city.parent / "stores"
    arguments = ["run", "--root", city, "--stores", folder, "--source", "oracle"]
    main([str(a) for a in arguments], standalone_mode=False)
    return folder


@pytest.fixture(scope="session")
def demo_city(tmp_path_factory) -> Path:
    """The demo city, seed 0, for slow tests."""
    from pipeline.synthetic.write import synthesize

    root = tmp_path_factory.mktemp("city") / "demo"
    synthesize(root, "demo", 0)
    return root


@pytest.fixture
def broken_city(city, tmp_path) -> Path:
    """A copy of the tiny city to break."""
    return Path(shutil.copytree(city, tmp_path / "broken"))


@pytest.fixture
def command(tmp_path):
    """Return a function that runs `python -m MODULE ARGUMENTS` in a temporary folder."""

    def run(module: str, *arguments: object, env: dict[str, str] | None = None) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})},
            capture_output=True,
            text=True,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run

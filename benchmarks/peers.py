"""Peers of other people in environments of their own: the nuScenes devkit (numpy 1), hdbscan.

Made once per machine in SELKIE_CACHE (default ~/.cache/selkie), from pinned versions.
"""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 500


class NoPeer(Exception):
    """The environment cannot be made here; says why."""


@dataclass(frozen=True)
class Environment:
    """A Python environment beside ours."""

    name: str
    imports: str  # the module that must import
    packages: tuple[str, ...]  # all of them, with versions

    def python(self) -> Path:
        """Return its Python, making it where it is missing.

        Raises:
            NoPeer: no network, or a package that does not install.
        """
        cache = Path(os.environ.get("SELKIE_CACHE") or Path.home() / ".cache/selkie")
        content = hashlib.sha256(" ".join(self.packages).encode()).hexdigest()[:8]
        python = cache / f"{self.name}-{content}" / "bin/python"
        check = [str(python), "-c", f"import {self.imports}"]
        if python.exists() and subprocess.run(check, capture_output=True).returncode == 0:
            return python
        steps = [
            [sys.executable, "-m", "venv", str(python.parents[1])],
            [str(python), "-m", "pip", "install", "-q", "--no-deps", *self.packages],
            check,
        ]
        for step in steps:
            try:
                done = subprocess.run(step, capture_output=True, text=True, timeout=TIMEOUT_S)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NoPeer(f"no environment for {self.name}: {error}") from error
            if done.returncode:
                raise NoPeer(f"no environment for {self.name}: {done.stderr.strip()[-200:]}")
        return python

    def start(self, script: str, *arguments: str, **options: object) -> subprocess.Popen:
        """Start a script in the environment.

        Raises:
            NoPeer: as above.
        """
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        words = [str(self.python()), "-c", script, *arguments]
        return subprocess.Popen(words, text=True, env=environment, **options)

    def run(self, script: str, *arguments: str) -> str:
        """Run a script in the environment and return what it printed.

        Raises:
            NoPeer: as above.
            RuntimeError: the script failed.
        """
        pipe = subprocess.PIPE
        process = self.start(script, *arguments, stdout=pipe, stderr=pipe)
        out, err = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the script for {self.name} failed:\n{err[-3000:]}")
        return out


class Peer:
    """A script of an environment that answers each line on its stdin with one on its stdout."""

    def __init__(self, environment: Environment, script: str, *arguments: str) -> None:
        """Start it."""
        pipe = subprocess.PIPE
        self._process = environment.start(script, *arguments, stdin=pipe, stdout=pipe, bufsize=1)

    def ask(self) -> str:
        """Return the next answer.

        Raises:
            RuntimeError: the script ended; what it said is on stderr.
        """
        self._process.stdin.write("\n")
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the peer's script ended early; see its message above")
        return answer

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()


DEVKIT = Environment(
    "devkit",
    "nuscenes.nuscenes",
    tuple(
        """
        nuscenes-devkit==1.1.11 numpy==1.26.4 opencv-python-headless==4.10.0.84 matplotlib==3.9.2
        pyquaternion==0.9.9 pillow==10.4.0 tqdm==4.70.1 cachetools==5.5.0 scikit-learn==1.5.2
        scipy==1.13.1 joblib==1.6.0 cloudpickle==3.1.1 threadpoolctl==3.8.0 contourpy==1.3.0
        cycler==0.12.1 kiwisolver==1.5.1 packaging==26.3 pyparsing==3.3.3 python-dateutil==4.0.0
        six==1.17.0 fonttools==4.68.0 shapely==2.0.6
        """.split()
    ),
)
HDBSCAN = Environment(
    "hdbscan",
    "hdbscan",
    tuple(
        """
        hdbscan==0.8.44 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 joblib==1.6.0
        narwhals==2.29.0 threadpoolctl==3.8.0 cloudpickle==3.1.3
        """.split()
    ),
)

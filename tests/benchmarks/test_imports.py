import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

PEERS = {"spconv_triton"}  # packages that a benchmark needs and we do not install
PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        print(error.name)
"""


def test_every_benchmark_imports():
    """One that `make bench` does not run broke without anybody seeing it.

    In a process of their own: they set the number of threads for all that comes after.
    """
    names = sorted(path.stem for path in Path(REPOSITORY, "benchmarks").glob("[a-z]*.py"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(names) > 10 and set(done.stdout.split()) <= PEERS

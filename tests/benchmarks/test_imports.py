import importlib
from pathlib import Path

import pytest

import benchmarks

NAMES = sorted(p.stem for p in Path(benchmarks.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_imports(name):
    """One that `make bench` does not run broke without anybody seeing it."""
    importlib.import_module(f"benchmarks.{name}")

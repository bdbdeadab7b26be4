"""minkowski_cuda.sh with a Python and a pip that only pretend: what its compiler is told."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment.scripts import FOLDER, program

# facts and key: one answer each; downloads and the wheel: files where the real ones would lie
PYTHON = """#!{python}
import os, sys, tarfile
from pathlib import Path
words = sys.argv[1:]
if words[0] == "-":
    print("key")
elif words[0].endswith("cuda_facts.py"):
    print("13.0 9.0")
elif words[:3] == ["-m", "pip", "install"]:
    Path(words[words.index("--target") + 1]).mkdir()
elif words[:3] == ["-m", "pip", "download"]:
    folder = Path(words[words.index("-d") + 1])
    folder.mkdir()
    tarfile.open(folder / "MinkowskiEngine-0.5.4.tar.gz", "w:gz").close()
elif words[:2] == ["-m", "zipfile"]:
    folder = Path(words[-1])
    folder.mkdir(exist_ok=True)
    for name in ("libmkl_rt.so.3", "mkl.h"):
        (folder / name).touch()
elif words[:3] == ["-m", "pip", "wheel"]:
    folder = Path(words[words.index("-w") + 1])
    folder.mkdir()
    (folder / "MinkowskiEngine-0.5.4-x.whl").touch()
    Path(os.environ["NOTES"]).write_text(os.environ.get("CPATH", ""))
"""
PIP = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --target) mkdir -p "$2";; -d) touch "$2/mkl-1.whl";; esac
  shift
done
"""


@pytest.fixture
def compile_it(tmp_path):
    """Return a function that runs the script with a toolkit and returns the compiler's CPATH."""
    program(tmp_path / "venv" / "bin" / "python", PYTHON.replace("{python}", sys.executable))
    program(tmp_path / "venv" / "bin" / "pip", PIP)
    program(tmp_path / "bin" / "c++", "#!/bin/sh\n")
    here = tmp_path / "environment"
    shutil.copytree(FOLDER, here, ignore=shutil.ignore_patterns("__pycache__"))

    def run(toolkit: Path, **more: str) -> str:
        environment = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "CUDA_HOME": str(toolkit),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "NOTES": str(tmp_path / "notes"),
            **more,
        }
        command = ["bash", str(here / "minkowski_cuda.sh"), str(tmp_path / "venv")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "notes").read_text()

    return run


def test_the_compiler_of_plain_sources_is_shown_where_cuda_13_keeps_thrust(compile_it, tmp_path):
    """quantization.cpp and direct_max_pool.cpp include it, and are not nvcc's."""
    cccl = tmp_path / "cuda" / "include" / "cccl"
    cccl.mkdir(parents=True)
    assert compile_it(tmp_path / "cuda", CPATH="/mine") == f"{cccl}:/mine"


def test_cuda_12_needs_no_more(compile_it, tmp_path):
    (tmp_path / "cuda" / "include" / "thrust").mkdir(parents=True)
    assert compile_it(tmp_path / "cuda") == ""

"""Which recipe setup.sh takes, with a Python, a pip and recipes that only pretend."""

import os
import shutil
import subprocess

import pytest

from tests.environment.scripts import FOLDER, program

PYTHON = """#!/bin/sh
script=$(cat)
case $script in *TORCH_CUDA_ARCH_LIST*) exit ${NO_GPU:-0};; esac
"""


@pytest.fixture
def setup(tmp_path):
    """Return a function that runs setup.sh and returns its exit code and the recipes it ran."""
    here = tmp_path / "environment"
    here.mkdir()
    shutil.copy(FOLDER / "setup.sh", here)
    program(tmp_path / "venv" / "bin" / "python", PYTHON)
    program(tmp_path / "venv" / "bin" / "pip", "#!/bin/sh\n")
    program(tmp_path / "bin" / "nvcc", "#!/bin/sh\n")

    def run(engine, no_gpu, cuda_code=0, cpu_code=0):
        for name, code in (("minkowski_cuda", cuda_code), ("minkowski", cpu_code)):
            program(here / f"{name}.sh", f"echo {name}; exit {code}\n")
        done = subprocess.run(
            ["bash", here / "setup.sh", tmp_path / "venv", "python", engine],
            env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "NO_GPU": str(no_gpu)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout.split(), done.stderr

    return run


@pytest.mark.parametrize("engine", ["auto", "minkowski"])
def test_a_gpu_with_nvcc_gets_the_cuda_recipe_and_others_the_old_one(setup, engine):
    assert setup(engine, no_gpu=0)[:2] == (0, ["minkowski_cuda"])
    assert setup(engine, no_gpu=1)[:2] == (0, ["minkowski"])


def test_auto_falls_back_to_the_cpu_and_then_to_native(setup):
    code, ran, err = setup("auto", no_gpu=0, cuda_code=2)
    assert (code, ran) == (0, ["minkowski_cuda", "minkowski"])
    assert "the native engine runs on the GPU" in err and "so the native engine is used" not in err
    code, ran, err = setup("auto", no_gpu=0, cuda_code=2, cpu_code=2)
    assert (code, ran) == (0, ["minkowski_cuda", "minkowski"])
    assert "so the native engine is used" in err
    code, ran, err = setup("auto", no_gpu=1, cpu_code=2)
    assert (code, ran) == (0, ["minkowski"]) and "so the native engine is used" in err


def test_minkowski_asked_for_does_not_fall_back(setup):
    assert setup("minkowski", no_gpu=0, cuda_code=2)[:2] == (2, ["minkowski_cuda"])
    assert setup("minkowski", no_gpu=1, cpu_code=2)[:2] == (2, ["minkowski"])


def test_native_compiles_nothing(setup):
    assert setup("native", no_gpu=0)[:2] == (0, [])


def test_another_python_is_refused_before_anything_is_made(tmp_path):
    makes = 'mkdir -p "$3/bin"; cp "$0" "$3/bin/python"'
    program(tmp_path / "python3.9", f'#!/bin/sh\n[ "$1" = -m ] && {{ {makes}; exit; }}\nexit 1\n')
    venv = tmp_path / "venv"
    words = ["bash", FOLDER / "setup.sh", venv, tmp_path / "python3.9", "auto"]
    assert subprocess.run(words, capture_output=True).returncode == 1
    assert not venv.exists()


def test_the_cpu_recipe_is_what_its_cached_wheels_were_made_with():
    """Its hash is part of the key: another byte and everybody compiles for ten minutes again."""
    import hashlib

    digest = hashlib.sha256((FOLDER / "minkowski.sh").read_bytes()).hexdigest()
    assert digest.startswith("12c9f091ba85")

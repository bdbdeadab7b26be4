"""Which toolkit and GPUs MinkowskiEngine is compiled for, with programs that only pretend."""

import os
import subprocess
import sys

import pytest

from tests.environment.scripts import FOLDER, load, program

facts = load("cuda_facts")
KNOWN = "compute_75\ncompute_80\ncompute_90\ncompute_100\n"


def test_gpus_present_are_named_once_and_rising():
    assert facts.arch_list("", ["10.0", "9.0", "9.0"], KNOWN) == "9.0;10.0"
    assert facts.arch_list("8.0 9.0+PTX", [], KNOWN) == "8.0;9.0+PTX"
    assert facts.arch_list("8.6;9.0", ["7.5"], KNOWN) == "8.6;9.0"


def test_a_gpu_that_nvcc_does_not_know_is_named():
    with pytest.raises(ValueError, match="capability 7.0 must be one .* \\(75, 80, 90, 100\\)"):
        facts.arch_list("", ["9.0", "7.0"], KNOWN)
    with pytest.raises(ValueError, match="GPU must be visible .* got none; set TORCH_CUDA_ARCH"):
        facts.arch_list("", [], KNOWN)


def test_nvcc_must_be_of_torch_cuda():
    facts.check_versions("13.0", "13.0")
    facts.check_versions("12.4", "12.8")
    with pytest.raises(ValueError, match="of torch's \\(13.0\\), got 12.4"):
        facts.check_versions("12.4", "13.0")
    with pytest.raises(ValueError, match="CUDA 12 or 13"):
        facts.check_versions("11.8", "11.8")
    with pytest.raises(ValueError, match="got a CPU-only one"):
        facts.check_versions("13.0", None)


def test_nvidia_smi_tells_the_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path / "nvidia-smi", "#!/bin/sh\n" + "printf '9.0\\n8.0\\n'")
    assert facts.capabilities() == ["9.0", "8.0"]
    program(tmp_path / "nvidia-smi", "#!/bin/sh\n" + "echo 'NVIDIA-SMI has failed'; exit 9")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _i: (7, 5))
    assert facts.capabilities() == ["7.5"]  # no driver program, so torch is asked


def test_the_line_for_the_script(tmp_path, monkeypatch):
    text = 'case $1 in --version) echo "Cuda release 13.0, V13.0.88";; *) printf "{}";; esac'
    program(tmp_path / "bin" / "nvcc", "#!/bin/sh\n" + text.format(KNOWN.replace("\n", "\\n")))
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    assert facts.main(str(tmp_path)) == "13.0 9.0"
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    monkeypatch.setattr(facts, "capabilities", lambda: ["8.0"])
    assert facts.main(str(tmp_path)) == "13.0 8.0"


def test_no_toolkit_is_one_line():
    environment = {**os.environ, "TORCH_CUDA_ARCH_LIST": "9.0"}
    command = [sys.executable, str(FOLDER / "cuda_facts.py"), ""]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("environment: CUDA_HOME must be a CUDA toolkit with bin/nvcc")
    assert len(done.stderr.splitlines()) == 1

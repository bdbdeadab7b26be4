"""Pretraining, probe, resume and bfloat16 on the GPU, as a user runs them, on the tiny city."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from tests.conftest import REPOSITORY
from tests.train.small_runs import SMALL, small_recipe
from train.models import image_teacher

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
SETTINGS = [part for setting in SMALL for part in ("--set", setting)]


def pretrain(stores, runs, run, device, *more):
    return ["pretrain", "--version", "tiny", "--stores", stores, "--runs", runs, "--run", run,
            "--source", "oracle", "--recipe", "seal_small", "--engine", "native",
            "--device", device, *SETTINGS, *more]  # fmt: skip


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines if '"loss"' in line]


def checkpoints(run: Path) -> list[Path]:
    return list(run.glob("checkpoint*.pt")) + list(run.glob("checkpoints/*.pt"))


def test_a_seal_run_and_its_probe(stores, tmp_path, command, device):
    runs = tmp_path / "runs"
    for name, where in (("here", device.type), ("on_cpu", "cpu")):
        done = command("train", *pretrain(stores, runs, name, where))
        assert done.code == 0, done.err
    ours, expected = losses(runs / "here"), losses(runs / "on_cpu")
    assert len(ours) == len(expected) > 1
    assert ours[0] == pytest.approx(expected[0], rel=1e-4)  # the same weights and batch
    assert ours[-1] == pytest.approx(expected[-1], rel=0.05)  # steps drift apart by rounding
    done = command(
        "eval", "probe", "--version", "tiny", "--stores", stores, "--runs", runs, "--run", "here",
        "--source", "oracle", "--recipe", "seal_small", "--engine", "native",
        "--device", device.type, "--set", "epochs=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    (result,) = (runs / "here" / "results").glob("linear-*.json")
    assert 0 <= json.loads(result.read_text())["miou"][0] <= 100


def test_a_killed_run_goes_on(stores, tmp_path, command, device):
    runs, cut = tmp_path / "runs", tmp_path / "runs" / "cut"
    longer = ("--set", "epochs=3")
    whole = command("train", *pretrain(stores, runs, "whole", device.type, *longer))
    assert whole.code == 0, whole.err
    words = pretrain(stores, runs, "cut", device.type, *longer)
    process = subprocess.Popen(
        [sys.executable, "-m", "train", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.DEVNULL,
    )
    while not checkpoints(cut):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = command("train", *words)
    assert done.code == 0, done.err
    # not bit for bit: pooling adds with atomics on a GPU
    assert losses(cut) == pytest.approx(losses(runs / "whole"), rel=0.05)


def test_both_branches_in_bfloat16(stores, tmp_path, command, device):
    settings = ("precision.images=bfloat16", "precision.points=bfloat16")
    try:
        small_recipe(*settings)
    except UserError as error:
        pytest.skip(f"recipes have no number formats here ({error})")
    runs = tmp_path / "runs"
    more = [part for setting in settings for part in ("--set", setting)]
    for name, extra in (("fp32", []), ("bf16", more)):
        done = command("train", *pretrain(stores, runs, name, device.type, *extra))
        assert done.code == 0, done.err
    exact, rough = losses(runs / "fp32"), losses(runs / "bf16")
    assert rough[0] == pytest.approx(exact[0], rel=0.05) and rough != exact


@pytest.mark.parametrize("kind", ["resnet50", "dino_vits16"])
def test_the_image_branch_in_bfloat16_is_near_float32(device, kind):
    teacher = image_teacher.make_teacher(image_teacher.Config(kind)).to(device)
    head = image_teacher.ImageHead(teacher.dim).to(device)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)).to(device)
    exact = head(teacher(images))
    with torch.autocast(device.type, torch.bfloat16):
        rough = head(teacher(images))
    assert rough.dtype == torch.bfloat16
    # 8 bits through some 50 layers of random weights
    assert 0 < ((rough.float() - exact).norm() / exact.norm()).item() < 0.1
    rough.float().square().mean().backward()
    gradient = head.project.weight.grad
    assert gradient.dtype == torch.float32 and gradient.isfinite().all() and gradient.any()

"""The GPU benchmarks on the CPU, with little data and small networks: that they run at all."""

import re
import sys
import types

import numpy as np
import pytest
import torch

from benchmarks import gpu_engines, gpu_sam, gpu_seal, gpu_timing
from pipeline.errors import UserError
from tests.train.small_runs import one_thread  # noqa: F401
from train.engines.table import ENGINES

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def sweep(tmp_path):
    """A nuScenes sweep of 150 points."""
    rng = np.random.default_rng(0)
    points = np.concatenate(
        [rng.normal(0, 8, (150, 2)), rng.uniform(-2, 1, (150, 1)), rng.uniform(0, 255, (150, 2))], 1
    )
    path = tmp_path / "sweep.pcd.bin"
    points.astype(np.float32).tofile(path)
    return path


@pytest.fixture(autouse=True)
def engines():
    before = dict(ENGINES.modules)
    yield
    ENGINES.modules.clear()
    ENGINES.modules.update(before)


def arguments(sweep, *more):
    return ["--device", "cpu", "--tiny", "--rounds", "1", "--points", str(sweep), *more]


def test_engines(sweep, capsys):
    gpu_engines.main(arguments(sweep, "--scans", "1"))
    out = capsys.readouterr().out
    for name in ("native fp32", "native tf32", "native bf16", "native fp32, unfused"):
        assert re.search(rf"^{name} +\d", out, re.MULTILINE), out
    assert "spconv fp32" in out
    if ENGINES.problem("minkowski") is None:
        assert re.search(r"native bf16 is \d+\.\d\d times as fast as minkowski fp32", out)


def test_work_of_one_convolution_by_hand():
    where = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32)
    work = gpu_engines.count_work(one_layer, torch.ones(2, 1), where)
    # two voxels that touch: 4 pairs of 1 x 64, forward and kernel's gradient only
    assert work.num_operations == 2 * 4 * 64 * 2
    assert work.num_values == (2 * 1 + 2 * 64) * 2


def one_layer(in_channels, out_channels, engine):
    ops = ENGINES.load(engine)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = ops.Convolution(in_channels, out_channels, kernel_size=3)

        def forward(self, features, coordinates):
            return self.layer(ops.make_tensor(features, coordinates)).features

    return Network()


def test_the_floor_is_the_larger_of_operations_and_bytes(monkeypatch):
    monkeypatch.setattr(gpu_engines, "rates", lambda *_: (100.0, 10.0))
    device = torch.device("cpu")
    assert gpu_engines.floor_s(gpu_engines.Work(1000, 1), "fp32", device, True) == 10
    assert (
        gpu_engines.floor_s(gpu_engines.Work(10, 100), "fp32", device, True) == 40
    )  # 4 bytes each
    assert gpu_engines.floor_s(gpu_engines.Work(10, 100), "bf16", device, True) == 20


def test_seal_step(sweep, capsys, monkeypatch):
    monkeypatch.setattr(gpu_seal, "CONTESTANTS", (("native", "fp32"), ("no_such", "fp32")))
    monkeypatch.setattr(gpu_seal, "PAIRS_PER_IMAGE", 50)
    gpu_seal.main(arguments(sweep, "--samples", "1"))
    out = capsys.readouterr().out
    assert "6 images" in out and "no_such fp32: left out" in out
    assert re.search(r"native fp32: .* ms a step, .* h for 50 epochs of 24111 samples", out)
    shares = re.search(r"points forward (\d+)%, teacher (\d+)%, head (\d+)%, losses (\d+)%, "
                       r"backward (\d+)%, optimizer (\d+)%", out)  # fmt: skip
    assert 97 <= sum(map(int, shares.groups())) <= 103
    assert "of the step (target at least 90%)" in out


def test_rate_and_hours_by_hand():
    text = gpu_seal.Report(4, 2.0, 1.5, {"a": 1.0, "b": 3.0}).text()
    # 2 samples/s: 50 * 24111 / 2 / 3600 = 167.4 h
    assert text.startswith("2000.0 ms a step, 2.00 samples/s, 167.4 h for")
    assert "a 25%, b 75%" in text and "networks alone 1500.0 ms = 75% of the step" in text


def test_sam_is_left_out_with_a_reason(capsys, monkeypatch):
    monkeypatch.setattr(gpu_sam, "MODULE", "pipeline.superpixels.no_such")
    gpu_sam.main(["--device", "cpu"])
    assert "left out (module 'pipeline.superpixels.no_such' is not here)" in capsys.readouterr().out
    monkeypatch.setattr(gpu_sam, "load_source", lambda: types.ModuleType("sam"))
    gpu_sam.main(["--device", "cpu", "--checkpoint", ""])
    assert "no checkpoint; set SAM_CHECKPOINT" in capsys.readouterr().out


def test_sam_is_timed(tmp_path, capsys, monkeypatch):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 12, 3), np.uint8))
    seen = []
    monkeypatch.setattr(gpu_sam, "load_source", lambda: fake_source(seen))
    monkeypatch.setitem(sys.modules, "torchvision", None)  # as where it is not installed
    gpu_sam.main(["--device", "cpu", "--checkpoint", "x", "--images", str(tmp_path)])
    out = capsys.readouterr().out
    assert "1 images (8, 12)" in out and "the package's generator: left out" in out
    assert re.search(r"ours, bfloat16, 4 at once +\d+\.\d+ images/s", out)
    assert {each[:2] for each in seen} == {(a, n) for a in ("none", "bfloat16") for n in (1, 4)}


def fake_source(seen):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Config:
        checkpoint: str
        autocast: str = "none"
        images_per_batch: int = 1

    class Segmenter:
        def __init__(self, config):
            self.config = config

        def segment_images(self, images, cameras):
            assert len(images) == len(cameras)
            seen.append((self.config.autocast, self.config.images_per_batch, len(images)))

    source = types.ModuleType("sam")
    source.Config, source.load = Config, lambda config, device: Segmenter(config)
    return source


@pytest.mark.parametrize("benchmark", [gpu_engines, gpu_seal, gpu_sam])
def test_without_a_gpu_it_is_one_line(benchmark, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: must be a device of this machine"):
        benchmark.main([])


def test_a_format_rounds_only_inside():
    before = torch.backends.cuda.matmul.allow_tf32
    with gpu_timing.tensor_cores("tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
    with gpu_timing.autocast("bf16", torch.device("cpu")):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16
    with gpu_timing.autocast("tf32", torch.device("cpu")):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32

"""The published sizes on a real 1600 x 900 image, with random weights."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.panoptic import MODELS, ROOT, published
from pipeline.xdecoder.checkpoint import build
from pipeline.xdecoder.shapes import Shapes, Unstored
from tests.pipeline.recordings import recording
from tests.pipeline.xdecoder.test_checkpoint import published as listed

LISTS = {"seem-l": "seem_focall", "seem-t": "seem_focalt", "xdecoder-l": "xdecoder_focall",
         "xdecoder-t": "seem_focalt", "openseed-t": "openseed_swint"}  # fmt: skip
MAX_MB = dict.fromkeys(MODELS, 4300)  # upstream: 4.2 GiB for Focal-L


@pytest.mark.parametrize("name", MODELS)
def test_the_benchmark_has_the_published_sizes(name):
    found = {key: tuple(value.shape) for key, value in published(name).state_dict().items()}
    wanted = listed(LISTS[name])
    assert found == wanted
    family = published(name).family
    read = build(Shapes(name, family.name, wanted), family, Unstored())
    assert [type(part) for part in read.modules()] == [
        type(part) for part in published(name).modules()
    ]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", MAX_MB)
def test_a_real_image_goes_through(name):
    (image,) = (recording("nuscenes") / "samples/CAM_FRONT").iterdir()
    command = ["-m", "benchmarks.panoptic", "--one", name, "--image", str(image)]
    threads = ["--rounds", "0", "--threads", str(torch.get_num_threads())]
    done = subprocess.run([sys.executable, *command, *threads], cwd=ROOT, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout.splitlines()[-1])
    assert cost["peak_mb"] < MAX_MB[name]
    assert {"backbone", "pixel decoder", "decoder", "map of all"} <= cost["seconds"].keys()
    assert cost["is_finite"] and cost["num_segments"] > 0

"""What one image costs SEEM, X-Decoder and OpenSeeD at full size: seconds by part, peak memory.

Weights are random (no published file is needed), so the masks mean nothing; all arithmetic is that
of the real networks but for the number of queries that are kept, which is therefore given: all of
them as the worst case, and 30 as a street scene may have. Each model runs in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.image import decode_image
from pipeline.xdecoder.box_decoder import BoxDecoder
from pipeline.xdecoder.deformable import DeformablePixelDecoder
from pipeline.xdecoder.family import OPENSEED, SEEM, XDECODER, Family
from pipeline.xdecoder.focalnet import FocalNet, FocalShape
from pipeline.xdecoder.masked_decoder import DecoderShape, MaskedDecoder, Prediction
from pipeline.xdecoder.model import PanopticModel, full_size, normalize
from pipeline.xdecoder.panoptic import Kept, Panoptic, merge
from pipeline.xdecoder.pixel_decoder import EncoderShape, PixelDecoder
from pipeline.xdecoder.segmenter import compile_parts
from pipeline.xdecoder.swin import Swin, SwinShape
from pipeline.xdecoder.text import TextShape

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SELKIE_DATA") or ROOT / "../shared/data")
FOCAL = {
    "l": FocalShape(192, (2, 2, 18, 2), ((3, 5, 7, 9),) * 4, is_depthwise=False),
    "t": FocalShape(96, (2, 2, 6, 2), ((3, 5, 7),) * 4, is_depthwise=True),
}
SWIN_T = SwinShape(96, (2, 2, 6, 2), (3, 6, 12, 24), 7)
MODELS = ("seem-l", "seem-t", "xdecoder-l", "xdecoder-t", "openseed-t")
STREET = 30  # kept queries


@dataclass(frozen=True)
class Cost:
    """What one image took."""

    seconds: dict[str, float]  # wall clock, by part
    core_seconds: float  # of all threads, with the map of all queries: steady on a busy machine
    peak_mb: float  # resident, of the whole process; on a GPU of torch's allocator there
    is_finite: bool
    num_segments: int  # with all queries kept


def published(name: str) -> PanopticModel:
    """Return a model in its published size, without weights (on the meta device)."""
    family = {"seem": SEEM, "xdecoder": XDECODER, "openseed": OPENSEED}[name.split("-")[0]]
    with torch.device("meta"):
        text = TextShape(512, 8, 12, 18 if family is OPENSEED else 77, 49408, 512)
        encoder = EncoderShape(hidden=2048, heads=8, depth=6)
        if family is OPENSEED:
            backbone, points = Swin(SWIN_T), 4
            pixel_decoder = DeformablePixelDecoder(backbone.widths, 256, 256, encoder, points)
            predictor = BoxDecoder(DecoderShape(256, 256, 2048, 8, 9, 300, 4), points, text)
        else:
            backbone = FocalNet(FOCAL[name[-1]])
            pixel_decoder = PixelDecoder(backbone.widths, 512, 512, encoder)
            num_queries = 201 if name == "xdecoder-l" else 101
            shape = DecoderShape(512, 512, 2048, 8, 9, num_queries, 3)
            predictor = MaskedDecoder(shape, text, family)
        return PanopticModel(family, backbone, pixel_decoder, predictor)


@torch.no_grad()
def randomize(model: PanopticModel, seed: int) -> None:
    """Fill all parameters: norms near one, matrices that keep the size of what they act on."""
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if key.endswith("logit_scale"):
            parameter.fill_(4.0)
        elif "norm" in key or "ln_" in key or "gamma" in key:
            parameter.copy_(0.1 * noise + (1.0 if key.endswith(("weight", "_1", "_2")) else 0.0))
        elif parameter.ndim > 1:
            parameter.copy_(noise * (2.0 / parameter[0].numel()) ** 0.5)
        else:
            parameter.copy_(0.1 * noise)
    model.predictor.mask_embed.layers[-1].weight.mul_(3.0)  # masks that are sure of themselves


def first(prediction: Prediction, count: int) -> Kept:
    """Return the first queries as kept, their classes as predicted."""
    scores, labels = prediction.logits[0].float().softmax(-1).max(-1)
    return Kept(torch.arange(count, device=scores.device), scores[:count], labels[:count])


@torch.inference_mode()
def measure(name: str, image: Path, options: argparse.Namespace) -> Cost:
    """Return the cost of one image after one to warm up, in this process."""
    device = torch.device(options.device)
    model = published(name).to_empty(device="cpu")
    randomize(model, 0)
    model = model.to(device)
    if options.compile:
        compile_parts(model)
    rows = 134 if model.family.has_background else 133
    classes = torch.nn.functional.normalize(torch.randn(rows, 512), dim=1).to(device)
    pixels = torch.from_numpy(decode_image(image)).permute(2, 0, 1)[None].float()
    images = pixels.expand(options.batch, -1, -1, -1).to(device)
    dtype = getattr(torch, options.autocast, None)
    seconds: dict[str, float] = {}
    core_seconds: dict[str, float] = {}

    def timed(part: str, call: Callable):
        start, core_start = time.perf_counter(), time.process_time()
        result = call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds[part] = time.perf_counter() - start
        core_seconds[part] = time.process_time() - core_start
        return result

    for _ in range(1 + options.rounds):
        with torch.autocast(device.type, dtype) if dtype else nullcontext():
            maps = timed("backbone", lambda: model.backbone(normalize(images)))
            features = timed("pixel decoder", lambda m=maps: model.sem_seg_head["pixel_decoder"](m))
            del maps
            prediction = timed("decoder", lambda f=features: model.predictor(f, classes))
            del features
        num_queries = prediction.logits.shape[1]
        for part, count in ((f"map of {STREET}", STREET), ("map of all", num_queries)):
            found = timed(part, lambda n=count, p=prediction: one_map(p, n, images, model.family))
    total = sum(core_seconds.values()) - core_seconds[f"map of {STREET}"]
    is_finite = bool(prediction.logits.isfinite().all() and prediction.masks.isfinite().all())
    is_gpu = device.type == "cuda"
    peak_mb = torch.cuda.max_memory_allocated(device) / 2**20 if is_gpu else peak_resident_mb()
    return Cost(seconds, total, peak_mb, is_finite, len(found.category) - 1)


def one_map(prediction: Prediction, count: int, images: Tensor, family: Family) -> Panoptic:
    """Return the panoptic map of the first image from the first queries, nothing dropped."""
    size = tuple(images.shape[-2:])
    masks = full_size(prediction.masks[0][:count], size, size, family)
    return merge(first(prediction, count), masks, size, overlap_threshold=0.0)


def peak_resident_mb() -> float:
    """Return this process's peak resident memory (ru_maxrss would start at its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, metavar="MODEL")
    parser.add_argument("--image", type=Path, help="any image (default: SELKIE_DATA's CAM_FRONT)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", default="none", choices=("none", "float16", "bfloat16"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch", type=int, default=1, help="images at once")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = sorted((DATA / "nuscenes" / "samples" / "CAM_FRONT").glob("*.jpg"))
    image = options.image or (found[0] if found else DATA / "nuscenes")
    if options.one:
        print(json.dumps(vars(measure(options.one, image, options))))
        return
    height, width = decode_image(image).shape[:2]
    print(f"{width} x {height}, batch {options.batch}, {options.device}, {options.threads} threads")
    for name in options.models:
        command = [sys.executable, "-m", "benchmarks.panoptic", "--one", name, *sys.argv[1:]]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        cost = json.loads(done.stdout.splitlines()[-1])
        total = sum(cost["seconds"].values()) - cost["seconds"][f"map of {STREET}"]
        parts = ", ".join(f"{part} {s:.2f}" for part, s in cost["seconds"].items())
        print(f"{name:12} {total:7.2f} s with all queries kept ({parts})")
        print(f"{'':12} {cost['core_seconds']:7.1f} core seconds, {cost['peak_mb']:.0f} MB at most")
        gain = cost["seconds"]["map of all"] / cost["seconds"][f"map of {STREET}"]
        print(
            f"{'':12} full-size maps of {STREET} queries kept, not of all: {gain:.1f} times faster"
        )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))

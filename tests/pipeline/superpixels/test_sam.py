"""SAM as a source of stage one, with small random checkpoints: loading, refusing, running."""

import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from pipeline.__main__ import main
from pipeline.errors import UserError
from pipeline.sam import checkpoint
from pipeline.sam.batches import Batches
from pipeline.sam.shape import SamShape, read_shape
from pipeline.store import open_store
from pipeline.superpixels import sam
from pipeline.superpixels.table import SOURCES
from tests.pipeline.sam.small import SMALL, other, random_sam, save

PUBLISHED = {  # width, depth, heads, blocks that see the whole image
    "vit_b": (768, 12, 12, (2, 5, 8, 11)),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
}
FEW = ("--set", "points_per_side=4", "--set", "predicted_iou=0.5")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv("SAM_CHECKPOINT", raising=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return save(random_sam(), tmp_path_factory.mktemp("sam") / "small.safetensors")


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path / "weights")


def run(root, stores, *more):
    arguments = ["run", "--root", root, "--stores", stores, "--stage", "superpixels",
                 "--source", "sam", *more]  # fmt: skip
    main([str(each) for each in arguments], standalone_mode=False)


def test_no_torchvision_is_left_behind():
    assert "torchvision" not in sys.modules and "torchvision.ops.boxes" not in sys.modules


def test_a_real_torchvision_is_put_back(monkeypatch):
    real = ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", real)
    with sam.stand_ins():
        assert sys.modules["torchvision"] is not real
        with pytest.raises(RuntimeError, match="batched_nms: must not be called"):
            sys.modules["torchvision.ops.boxes"].batched_nms()
    assert sys.modules["torchvision"] is real and "torchvision.ops" not in sys.modules


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_variants_are_told_by_their_weights(name):
    width, depth, heads, blocks = PUBLISHED[name]
    shape = SamShape(width, depth, heads, 4.0, 16, 64, 14, blocks, 256, 16, 3, 2, 2048, 3, 256)
    with torch.device("meta"):
        state = sam.build(shape).state_dict()
    found = read_shape("file", state)
    assert found == shape and found.variant == name and found.image_size == 1024


@pytest.mark.parametrize("shape", [SMALL, other(window=0, global_blocks=(0, 1), masks=2)])
def test_sizes_round_trip(shape):
    assert read_shape("file", sam.build(shape).state_dict()) == shape


def test_a_loaded_network_is_the_saved_one(small, tmp_path):
    model = random_sam()
    torch.save(model.state_dict(), tmp_path / "small.pth")
    for path in (small, tmp_path / "small.pth"):
        loaded = sam.load(sam.Config(checkpoint=str(path)), "cpu").model
        image = torch.rand(1, 3, SMALL.image_size, SMALL.image_size)
        assert torch.equal(loaded.preprocess(image), model.preprocess(image))
        assert torch.equal(loaded.image_encoder(image), model.image_encoder(image))
        assert not loaded.training


def refusal(path, match):
    with pytest.raises(UserError, match=match) as caught:
        sam.load(sam.Config(checkpoint=str(path)), "cpu")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_and_damaged_files_are_named(small, tmp_path):
    refusal(tmp_path / "none.pth", "checkpoint must exist")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(small.read_bytes()[:5000])
    refusal(cut, "must be a file of tensors")
    state = random_sam().state_dict()
    torch.save(state, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-9000])
    refusal(tmp_path / "cut.pth", "must be a file of tensors")
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pth")
    refusal(tmp_path / "other.pth", "must be a checkpoint of SAM, got no 'image_encoder.*sam_vit_h")
    lacking = {k: v for k, v in state.items() if not k.endswith("neck.1.weight")}
    torch.save(lacking | {"more": torch.ones(1)}, tmp_path / "lacking.pth")
    refusal(tmp_path / "lacking.pth", r"1 missing \(image_encoder.neck.1.weight\); 1 unexpected")
    shaped = state | {"image_encoder.neck.1.weight": torch.ones(3)}
    torch.save(shaped, tmp_path / "shaped.pth")
    refusal(tmp_path / "shaped.pth", r"of another shape \(image_encoder.neck.1.weight \[3\] for")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('boom')",))

    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb()))
    refusal(tmp_path / "bomb.pth", "must be a file of tensors")


def test_without_a_checkpoint_the_three_files_are_named(no_weights):
    with pytest.raises(UserError, match="sam: checkpoint must be on this machine") as caught:
        sam.load(sam.Config(), "cpu")
    message = str(caught.value)
    for part in ("vit_h_4b8939.pth (2.6 GB", "vit_l_0b3195.pth (1.2 GB", "vit_b_01ec64.pth (375 MB",
                 "SAM_CHECKPOINT", "weights/"):  # fmt: skip
        assert part in message
    assert sam.missing(sam.Config()) == message


def test_where_a_checkpoint_is_looked_for(no_weights, small, tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "sam_vit_b_01ec64.pth").write_bytes(b"x")
    assert checkpoint.find_checkpoint(sam.Config()).name == "sam_vit_b_01ec64.pth"
    assert sam.missing(sam.Config()) is None
    monkeypatch.setenv("SAM_CHECKPOINT", str(small))
    assert checkpoint.find_checkpoint(sam.Config()) == small
    given = sam.Config(checkpoint=str(weights / "sam_vit_b_01ec64.pth"))
    assert checkpoint.find_checkpoint(given).name == "sam_vit_b_01ec64.pth"


def test_the_city_has_a_model_of_its_own(monkeypatch):
    assert sam.for_dataset(sam.Config(), "nuscenes") == sam.Config()
    assert sam.for_dataset(sam.Config(), "synthetic").checkpoint.endswith("tiny_sam.safetensors")
    assert (
        sam.for_dataset(sam.Config(), "synthetic").stability
        == checkpoint.TINY_THRESHOLDS["stability"]
    )
    assert sam.for_dataset(sam.Config(stability=0.9), "synthetic").stability == 0.9
    given = sam.Config(checkpoint="mine")
    assert sam.for_dataset(given, "synthetic") == given
    monkeypatch.setenv("SAM_CHECKPOINT", "mine")
    assert sam.for_dataset(sam.Config(), "synthetic") == sam.Config()


def test_out_of_memory_halves_the_batch(capsys):
    """A function that fits three items: 8 -> 4 -> 2, nothing lost, nothing twice, and said."""
    seen = []

    def function(part):
        if len(part) > 3:
            raise torch.OutOfMemoryError("fake")
        seen.append(len(part))
        return [2 * value for value in part]

    batches = Batches("prompts", 8, print)
    assert batches.run(function, list(range(11))) == [2 * value for value in range(11)]
    assert batches.size == 2 and seen == [2, 2, 2, 2, 2, 1]
    assert "prompts: out of memory, 2 at a time from now on" in capsys.readouterr().out
    assert batches.run(function, [1, 2, 3]) == [2, 4, 6]  # and it stays small
    assert seen[-2:] == [2, 1]


def test_out_of_memory_with_one_item_is_an_error():
    def function(part):
        raise torch.OutOfMemoryError("fake")

    with pytest.raises(torch.OutOfMemoryError):
        Batches("images", 4, print).run(function, [1, 2, 3])


def test_out_of_memory_in_the_network_changes_no_mask(small, monkeypatch):
    """The encoder fits one image, the decoder two prompts; the maps are those of full batches."""
    images = [np.random.default_rng(n).integers(0, 255, (40, 60, 3)).astype("u1") for n in (0, 1)]
    settings = {"checkpoint": str(small), "points_per_side": 3, "predicted_iou": 0.5}
    config = sam.Config(images_per_batch=2, prompts_per_batch=9, **settings)
    roomy, tight = sam.load(config, "cpu"), sam.load(config, "cpu")
    encode, decode = tight.model.image_encoder.forward, tight.model.prompt_encoder.forward

    def encoder(batch):
        if len(batch) > 1:
            raise torch.OutOfMemoryError("fake")
        return encode(batch)

    def prompts(points, *rest):
        if len(points[0]) > 2:
            raise torch.OutOfMemoryError("fake")
        return decode(points, *rest)

    monkeypatch.setattr(tight.model.image_encoder, "forward", encoder)
    monkeypatch.setattr(tight.model.prompt_encoder, "forward", prompts)
    expected = roomy.segment_images(images, [None, None])
    found = tight.segment_images(images, [None, None])
    assert (tight.images.size, tight.prompts.size) == (1, 2)
    for a, b in zip(expected, found, strict=True):
        assert (a.ids == b.ids).mean() > 0.999 and a.num_segments > 0


def test_half_precision_of_the_encoder_is_near(small):
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype("u1")
    whole = sam.load(sam.Config(checkpoint=str(small)), "cpu").encode([image])[0]
    half = sam.load(sam.Config(checkpoint=str(small), autocast="bfloat16"), "cpu").encode([image])
    assert half[0].dtype == torch.float32 and not torch.equal(half[0], whole)
    assert (half[0] - whole).abs().mean() < 0.1 * whole.abs().mean()


def test_clean_ups_are_off_by_default_and_can_be_asked_for(small):
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype("u1")
    settings = {"checkpoint": str(small), "points_per_side": 6, "predicted_iou": 0.5}
    plain = sam.load(sam.Config(**settings), "cpu").segment(image, None).ids
    filled = sam.load(sam.Config(fill=True, **settings), "cpu").segment(image, None).ids
    assert 0 < (plain == 0).mean() < 1 and (filled > 0).all()
    assert (filled[plain > 0] == plain[plain > 0]).all()


def test_stage_one_stores_ids_and_says_how_many(city, small, tmp_path, capfd):
    run(city, tmp_path, "--set", f"checkpoint={small}", *FEW)
    assert "segments an image (median; " in capfd.readouterr().err
    store = open_store(next(tmp_path.glob("*/superpixels-sam.zarr")))
    counts = store.read("num_segments", 0)
    assert counts.max() > 0 and store.read("ids_native", 0).max() >= counts.max()
    config = store.header.config
    assert len(config["checkpoint_sha256"]) == 64 and config["predicted_iou"] == 0.5
    assert not {"checkpoint", "compile", "images_per_batch", "prompts_per_batch"} & config.keys()


@pytest.mark.slow
def test_the_city_runs_with_the_model_that_ships(city, command, tmp_path):
    few = ("--set", "points_per_side=8")  # an image takes 2.6 s of a core with 32 x 32 points
    outcome = command("pipeline", "run", "--root", city, "--stores", tmp_path, "--source", "sam",
                      "--stage", "superpixels", *few, env={"SAM_CHECKPOINT": ""})  # fmt: skip
    assert outcome.code == 0, outcome.err
    store = open_store(next(tmp_path.glob("*/superpixels-sam.zarr")))
    counts = np.concatenate([store.read("num_segments", row) for row in range(8)])
    assert np.median(counts) >= 5


def test_dry_run_times_a_few_images_and_makes_nothing(city, small, tmp_path, capfd):
    run(city, tmp_path, "--set", f"checkpoint={small}", *FEW, "--dry-run")
    said = capfd.readouterr().err
    assert "superpixels-sam.zarr: not there yet, 8 frames to do" in said
    assert "with 1 worker, by 3 images timed here; " in said and "segments an image" in said
    assert not list(tmp_path.glob("*/superpixels*"))


def test_dry_run_times_as_many_images_at_once_as_the_run_will(city, small, tmp_path, capfd):
    batch = ("--set", "images_per_batch=2")
    run(city, tmp_path, "--set", f"checkpoint={small}", *FEW, *batch, "--dry-run")
    assert "with 1 worker, by 6 images timed here; " in capfd.readouterr().err


def test_dry_run_where_the_device_is_not_here(city, small, tmp_path, capfd):
    run(city, tmp_path, "--set", f"checkpoint={small}", *FEW, "--dry-run", "--device", "gpu7")
    assert "no rate yet: run with --limit 1 and ask again (--device: must be" in (
        capfd.readouterr().err
    )


def test_the_source_is_in_the_table_and_says_how_to_install_it(monkeypatch):
    assert SOURCES.load("sam") is sam
    monkeypatch.delitem(sys.modules, "pipeline.superpixels.sam")
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    monkeypatch.setitem(sys.modules, "segment_anything.modeling", None)
    assert "pip install --no-deps segment-anything" in SOURCES.problem("sam")

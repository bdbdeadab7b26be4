import re

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import override
from pipeline.errors import UserError
from pipeline.superpixels.table import SOURCES, segment_images
from pipeline.tensor_files import torch_device
from pipeline.types import Camera
from pipeline.xdecoder import segmenter, tokenizer
from pipeline.xdecoder.family import OPENSEED, SEEM, XDECODER
from pipeline.xdecoder.model import normalize
from pipeline.xdecoder.segmenter import Segmenter, Settings, shrink
from tests.pipeline.xdecoder.tiny import random_image, save, tiny_model, unit_classes

CAMERA = Camera("CAM", "token", "a.jpg", 45, 71, np.eye(3), np.eye(4), 0)
NAMES = ("seem", "xdecoder", "openseed")
each_source = pytest.mark.parametrize("name", NAMES)


def _image(height=45, width=71, seed=0):
    image = random_image(height, width, seed)[0].permute(1, 2, 0)
    return image.round().to(torch.uint8).numpy()


def _segmenter(family=SEEM, is_dw=False, **settings):
    model = tiny_model(family, is_dw=is_dw)
    classes = unit_classes(134 if family.has_background else 133)
    chosen = Settings(object_threshold=0.2, overlap_threshold=0.3, **settings)
    return Segmenter(model, classes, chosen, torch.device("cpu"))


@each_source
def test_defaults_are_the_published_ones(name):
    config = SOURCES.load(name).Config()
    thresholds = {"seem": 0.4, "xdecoder": 0.8, "openseed": 0.25}
    assert (config.object_threshold, config.overlap_threshold) == (thresholds[name], 0.8)
    assert config.short_side_px == 0 and config.autocast == "none"


@pytest.mark.parametrize("family", [SEEM, OPENSEED], ids=lambda family: family.name)
def test_ids_run_without_gaps_and_have_categories(family):
    found = _segmenter(family).segment(_image(), CAMERA)
    assert found.ids.shape == (45, 71)
    assert found.num_segments >= 2
    assert np.unique(found.ids[found.ids > 0]).tolist() == list(range(1, found.num_segments + 1))
    assert len(found.category) == found.num_segments + 1
    assert found.category[0] == -1
    assert ((found.category[1:] >= 0) & (found.category[1:] < 133)).all()


def test_images_of_a_frame_go_together_and_come_back_in_order():
    images = [_image(seed=0), _image(seed=1), _image(40, 60, seed=2), _image(seed=3)]
    cameras = [CAMERA] * 4
    together = segment_images(_segmenter(images_per_batch=3), images, cameras)
    one_by_one = segment_images(_segmenter(), images, cameras)
    assert [each.ids.shape for each in together] == [(45, 71), (45, 71), (40, 60), (45, 71)]
    for one, two in zip(together, one_by_one, strict=True):
        assert (one.ids == two.ids).mean() > 0.999  # sums in another order can move an edge
        assert one.category.tolist() == two.category.tolist()


def test_sources_without_batches_are_asked_one_by_one():
    class Plain:
        def segment(self, image, camera):
            return image.shape, camera.name

    found = segment_images(Plain(), [_image(), _image(40, 60)], [CAMERA, CAMERA])
    assert found == [((45, 71, 3), "CAM"), ((40, 60, 3), "CAM")]


def test_shrink_by_hand_and_as_pillow():
    image = _image(90, 161)
    assert shrink(image, 0) is image
    assert shrink(image, 45).shape == (45, 80, 3)  # 80.5, rounded down
    assert shrink(_image(161, 90), 45).shape == (80, 45, 3)
    assert shrink(image, 180).shape == (180, 322, 3)  # small ones grow
    want = Image.fromarray(image).resize((80, 45), Image.BICUBIC)
    np.testing.assert_array_equal(shrink(image, 45), np.asarray(want))


def test_short_side_still_gives_native_ids():
    found = _segmenter(short_side_px=32).segment(_image(90, 140), CAMERA)
    assert found.ids.shape == (90, 140) and found.num_segments >= 1


@pytest.mark.parametrize("family", [SEEM, XDECODER, OPENSEED], ids=lambda family: family.name)
@pytest.mark.parametrize("is_dw", [False, True])
def test_half_precision_stays_near(family, is_dw):
    found = _segmenter(family, is_dw, autocast="float16")
    images = normalize(random_image(45, 71))
    parts = found.model.sem_seg_head["pixel_decoder"]
    exact = parts(found.model.backbone(images)).mask_features
    with found.precision():
        half = parts(found.model.backbone(images)).mask_features.float()
    error = ((exact - half).norm() / exact.norm()).item()
    assert 1e-5 < error < 0.03  # eleven bits: 0.05 % an operation, some forty in a row
    assert found.segment(_image(), CAMERA).ids.shape == (45, 71)


@pytest.mark.slow
def test_compiled_gives_the_same():
    plain, compiled = _segmenter(), _segmenter(compile=True)
    segmenter.compile_parts(compiled.model)
    one, two = (each.segment(_image(), CAMERA) for each in (plain, compiled))
    assert (one.ids == two.ids).mean() > 0.999
    assert one.category.tolist() == two.category.tolist()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("object_threshold=1.5", "object_threshold must be 0 .. 1, got 1.5"),
        ("images_per_batch=0", "images_per_batch >= 1, got 0 and 0"),
        ("short_side_px=-1", "short_side_px must be >= 0"),
        ("autocast=int8", "autocast: must be .*got 'int8'"),
        ("threshold=0.3", "unknown key 'threshold'; did you mean"),
    ],
)
def test_settings_that_make_no_sense(assignment, message):
    with pytest.raises(UserError, match=message):
        override(SOURCES.load("seem").Config(), [assignment])


@pytest.fixture
def nothing_there(tmp_path, monkeypatch):
    """No variable, an empty weights folder."""
    for name in NAMES:
        monkeypatch.delenv(SOURCES.load(name).PUBLISHED.variable, raising=False)
    monkeypatch.setattr(segmenter, "WEIGHTS", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    return tmp_path


@each_source
def test_without_a_checkpoint_one_line_says_which_to_get(nothing_there, name):
    source = SOURCES.load(name)
    variable = f"{name.upper()}_CHECKPOINT"
    expected = f"^{name}: checkpoint must be on this machine, got none; download https.*{variable}"
    for call in (source.identify, source.missing, lambda config: source.load(config, "cpu")):
        try:
            line = call(source.Config())
        except UserError as error:
            line = str(error)
        assert line and "\n" not in line
        assert re.match(expected, line)
    assert source.PUBLISHED.files[0] in source.PUBLISHED.url


@each_source
def test_flag_before_variable_before_weights_folder(nothing_there, monkeypatch, name):
    source = SOURCES.load(name)
    files = {}
    for number, place in enumerate(("flag", "variable", "weights")):
        folder = nothing_there / place
        folder.mkdir(exist_ok=True)
        files[place] = folder / source.PUBLISHED.files[-1]
        files[place].write_bytes(bytes([number]))
    hashes = {}
    hashes["weights"] = source.identify(source.Config())
    monkeypatch.setenv(source.PUBLISHED.variable, str(files["variable"]))
    hashes["variable"] = source.identify(source.Config())
    hashes["flag"] = source.identify(source.Config(checkpoint=str(files["flag"])))
    assert len({each["checkpoint_sha256"] for each in hashes.values()}) == 3
    assert source.missing(source.Config()) is None
    files["variable"].unlink()
    with pytest.raises(UserError, match=f"checkpoint must exist, got .*correct {name.upper()}_CH"):
        source.identify(source.Config())


def test_the_hash_follows_the_content_not_the_path(nothing_there):
    source = SOURCES.load("seem")
    one, two = nothing_there / "one.pt", nothing_there / "two.pt"
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    first, second = (source.identify(source.Config(checkpoint=str(path))) for path in (one, two))
    assert first == second
    two.write_bytes(b"other")
    assert source.identify(source.Config(checkpoint=str(two))) != first


@each_source
def test_without_the_vocabulary_only_that_is_missing(nothing_there, monkeypatch, name):
    monkeypatch.setattr(tokenizer, "PACKAGE", "no_such_package")
    line = SOURCES.load(name).missing(SOURCES.load(name).Config())
    assert line == (
        "CLIP vocabulary: bpe_simple_vocab_16e6.txt.gz must be installed, got none; "
        "run 'pip install --no-deps no_such_package'"
    )


def test_a_toy_vocabulary_is_refused(tmp_path):
    source = SOURCES.load("seem")
    path = save(tiny_model(SEEM), tmp_path / "toy.safetensors")
    with pytest.raises(UserError, match="must know CLIP's 49408 tokens, got 300"):
        source.load(source.Config(checkpoint=str(path)), "cpu")


def test_a_device_that_is_not_there():
    assert torch_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="--device: must be a device of this machine, got 'gpu7'"):
        torch_device("gpu7")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="got 'cuda'"):
            torch_device("cuda")

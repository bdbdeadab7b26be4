import gzip
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import UserError
from pipeline.xdecoder.checkpoint import build, load_model
from pipeline.xdecoder.family import OPENSEED, PREDICTOR, SEEM, XDECODER
from pipeline.xdecoder.shapes import Shapes, Unstored
from tests.pipeline.xdecoder.tiny import save, tiny_model, unit_classes

KEYS = Path(__file__).parent / "keys"  # names and shapes of the published models
UNSTORED = Unstored(num_proposals=12)
FAMILIES = [SEEM, XDECODER, OPENSEED]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def published(name: str) -> dict[str, tuple[int, ...]]:
    lines = gzip.decompress((KEYS / f"{name}.txt.gz").read_bytes()).decode().splitlines()
    pairs = (line.split("\t") for line in lines)
    return {key: tuple(int(n) for n in shape.strip("()").split(",") if n) for key, shape in pairs}


@pytest.mark.parametrize(
    ("name", "family", "millions", "num_queries"),
    [
        ("seem_focall", SEEM, 340.4, 101),
        ("seem_focalt", SEEM, 163.8, 101),
        ("xdecoder_focall", XDECODER, 340.5, 201),
        ("seem_focalt", XDECODER, 163.8, 101),
        ("openseed_swint", OPENSEED, None, 300),
    ],
)
def test_full_size_keys_and_shapes(name, family, millions, num_queries):
    wanted = published(name)
    model = build(Shapes(name, family.name, wanted), family, Unstored())
    found = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert found == wanted
    assert model.predictor.num_queries == num_queries
    if millions:
        total = sum(torch.Size(shape).numel() for shape in found.values())
        assert round(total / 1e6, 1) == pytest.approx(millions, abs=0.1)


@each_family
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_a_checkpoint_comes_back_as_the_model_that_wrote_it(tmp_path, family, kind):
    model = tiny_model(family, is_dw=True)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    path = tmp_path / f"model.{kind}"
    torch.save(state, path) if kind == "pt" else save_file(state, path)
    loaded = load_model(path, family, UNSTORED)
    images, classes = torch.rand(1, 3, 60, 100) * 255, unit_classes(133)
    for one, two in zip(vars(model(images, classes)).values(),
                        vars(loaded(images, classes)).values(), strict=True):  # fmt: skip
        assert one is two is None or torch.equal(one, two)


def _damage(tmp_path, family, change):
    path = save(tiny_model(family), tmp_path / "model.safetensors")
    state = load_file(path)
    change(state)
    save_file(state, path)
    return path


@each_family
def test_a_missing_key_is_named(tmp_path, family):
    key = "backbone.norm2.weight"
    path = _damage(tmp_path, family, lambda state: state.pop(key))
    with pytest.raises(UserError, match=f"got 1 missing \\({key}\\); give the published file$"):
        load_model(path, family, UNSTORED)


@each_family
def test_another_shape_is_shown(tmp_path, family):
    key = PREDICTOR + "decoder_norm.bias"
    path = _damage(tmp_path, family, lambda state: state.update({key: torch.zeros(5)}))
    with pytest.raises(UserError, match=r"1 of another shape \(\S+decoder_norm.bias \[5\] for"):
        load_model(path, family, UNSTORED)


@each_family
def test_what_is_left_over_must_be_known(tmp_path, family):
    def add(state):
        state["criterion.empty_weight"] = torch.zeros(3)  # training's, known
        state |= {f"novelty.{i}": torch.zeros(1) for i in range(5)}

    path = _damage(tmp_path, family, add)
    expected = r"5 unexpected \(novelty.0, novelty.1, novelty.2, ...\); .*ignore_keys=PATTERN"
    with pytest.raises(UserError, match=expected) as caught:
        load_model(path, family, UNSTORED)
    assert "\n" not in str(caught.value)
    load_model(path, family, UNSTORED, ignore_keys=("novelty.*",))


def test_a_key_that_sizes_are_read_from_is_named(tmp_path):
    path = _damage(tmp_path, SEEM, lambda state: state.pop(PREDICTOR + "query_feat.weight"))
    with pytest.raises(UserError, match="must hold 'sem_seg_head.predictor.query_feat.weight'"):
        load_model(path, SEEM)
    with pytest.raises(UserError, match="give a checkpoint of openseed"):
        load_model(path, OPENSEED)


def test_seem_and_xdecoder_are_told_apart_by_what_training_left(tmp_path):
    seem_key, xdecoder_key = PREDICTOR + "pn_indicator.weight", PREDICTOR + "caping_embed"
    only_xdecoder = _damage(tmp_path, SEEM, lambda s: s.update({xdecoder_key: torch.zeros(1)}))
    load_model(only_xdecoder, XDECODER)
    with pytest.raises(UserError, match="checkpoint of seem, got one of xdecoder; use --source"):
        load_model(only_xdecoder, SEEM)
    both = {xdecoder_key: torch.zeros(1), seem_key: torch.zeros(1)}
    load_model(_damage(tmp_path, SEEM, lambda s: s.update(both)), SEEM)


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(UserError, match="checkpoint must exist, got no such file"):
        load_model(tmp_path / "nowhere.pt", SEEM)
    for name in ("torn.pt", "torn.safetensors"):
        (tmp_path / name).write_bytes(b"not a checkpoint at all")
        with pytest.raises(UserError, match="must be a file of tensors, got .*; get it again"):
            load_model(tmp_path / name, SEEM)
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "nested.pt")
    with pytest.raises(UserError, match="must be a flat dict of tensors"):
        load_model(tmp_path / "nested.pt", SEEM)
    torch.save({"weights": Path("a")}, tmp_path / "objects.pt")  # would run code when unpickled
    with pytest.raises(UserError, match="must be a file of tensors"):
        load_model(tmp_path / "objects.pt", SEEM)

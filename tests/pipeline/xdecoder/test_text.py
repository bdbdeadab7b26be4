import pytest
import safetensors.torch
import torch

from pipeline.xdecoder import text_cache
from pipeline.xdecoder.family import SEEM
from pipeline.xdecoder.text import class_vectors
from pipeline.xdecoder.text_cache import cache_folder, cache_key, cached_class_vectors
from pipeline.xdecoder.tokenizer import tokenizer_of
from tests.pipeline.xdecoder.tiny import tiny_model

TOKENIZER = tokenizer_of(["o f</w>", "c a", "ca r</w>"])
VOCABULARY = len(TOKENIZER.ids)


@pytest.fixture(scope="module")
def encoder():
    return tiny_model(SEEM, vocabulary=VOCABULARY).predictor.lang_encoder


def test_what_follows_the_end_token_does_not_matter(encoder):
    ids = torch.from_numpy(TOKENIZER.encode(["a car", "car", "of of of car"], encoder.context))
    whole = encoder.lang_encoder(ids)  # the slow way: every sentence to its full length
    ends = ids.argmax(dim=1)
    want = whole[torch.arange(3), ends] @ encoder.lang_proj
    torch.testing.assert_close(encoder.project(ids), want, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(encoder(ids).norm(dim=1), torch.ones(3))


def test_class_vectors_are_means_of_unit_vectors(encoder, monkeypatch):
    monkeypatch.setattr("pipeline.xdecoder.text.prompts", lambda name: [name, f"a {name}"])
    found = class_vectors(encoder, TOKENIZER, ["car", "road", "car"])
    ids = torch.from_numpy(TOKENIZER.encode(["car", "a car"], encoder.context))
    mean = encoder(ids).mean(dim=0)
    torch.testing.assert_close(found[0], mean / mean.norm(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found[0], found[2], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache/selkie/class_vectors"
    return cache_folder()


def test_computed_once(encoder, cache, monkeypatch, capsys):
    first = cached_class_vectors(encoder, TOKENIZER, ["car", "road"])
    assert "once per checkpoint" in capsys.readouterr().err
    assert [path.stem for path in cache.iterdir()] == [cache_key(encoder, ["car", "road"])]

    def never(*arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr(text_cache, "class_vectors", never)
    torch.testing.assert_close(cached_class_vectors(encoder, TOKENIZER, ["car", "road"]), first)
    with pytest.raises(AssertionError, match="computed again"):
        cached_class_vectors(encoder, TOKENIZER, ["car", "sky"])  # other classes, other file


def test_other_weights_have_another_key(encoder):
    other = tiny_model(SEEM, seed=1, vocabulary=VOCABULARY).predictor.lang_encoder
    same = tiny_model(SEEM, seed=0, vocabulary=VOCABULARY).predictor.lang_encoder
    assert cache_key(other, ["car"]) != cache_key(encoder, ["car"]) == cache_key(same, ["car"])


def test_a_damaged_file_is_made_again(encoder, cache, capsys):
    want = cached_class_vectors(encoder, TOKENIZER, ["car"])
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:40])
    torch.testing.assert_close(cached_class_vectors(encoder, TOKENIZER, ["car"]), want)
    assert "damaged" in capsys.readouterr().err
    torch.testing.assert_close(safetensors.torch.load_file(path)["classes"], want)

import importlib.metadata
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.xdecoder import tokenizer as module
from pipeline.xdecoder.class_names import CLASSES, prompts
from pipeline.xdecoder.tokenizer import (
    END,
    START,
    clip_tokenizer,
    pieces_of,
    tokenizer_of,
    vocabulary_path,
)

TINY = tokenizer_of(["a b", "ab c</w>", "b c</w>"])


def _tokens(text):
    names = {number: token for token, number in TINY.ids.items()}
    return [names[number] for number in TINY.tokens(text, {})]


def test_merges_by_hand():
    assert len(TINY.ids) == 512 + 3 + 2
    assert _tokens("abc") == ["abc</w>"]  # 'a b' comes first, then 'ab c'
    assert _tokens("bc ABC") == ["bc</w>", "abc</w>"]  # upper case does not matter
    assert _tokens("abab") == ["ab", "a", "b</w>"]  # 'b</w>' is not 'b'
    assert _tokens("it's 12!?") == ["i", "t</w>", "'", "s</w>", "1</w>", "2</w>", "!", "?</w>"]


def test_bytes_of_other_letters():
    assert len(_tokens("é")) == 2  # two bytes in UTF-8, no merge
    assert _tokens("e\u0301") == _tokens("é")  # composed first


def test_pieces_are_those_of_clips_own_pattern():
    """CLIP's pattern needs classes of letters and numbers that `re` does not have."""
    regex = pytest.importorskip("regex")
    pattern = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    assert pieces_of("x\u00b2 1\u00bd") == ["x", "\u00b2", "1", "\u00bd"]  # raised 2, a half

    known = st.characters(exclude_categories=["Cc", "Cn", "Cs"])  # to this Python's Unicode tables

    @given(st.text(known, max_size=40))
    @settings(max_examples=100, deadline=None)
    def same(text):
        text = unicodedata.normalize("NFC", text).lower()
        assert pieces_of(text) == pattern.findall(text)

    same()


def test_rows_are_padded_and_cut_with_the_end_token():
    start, end = TINY.ids[START], TINY.ids[END]
    rows = TINY.encode(["abc", "abc abc abc abc"], 4)
    word = TINY.ids["abc</w>"]
    assert rows.tolist() == [[start, word, end, end], [start, word, word, end]]


def test_words_met_before_change_nothing():
    known = {}
    first = TINY.tokens("abc bc", known)
    assert known and TINY.tokens("abc bc", known) == first


def test_clip_vocabulary():
    clip = clip_tokenizer()
    assert len(clip.ids) == 49408
    assert (clip.ids[START], clip.ids[END]) == (49406, 49407)
    # as published with CLIP: "a photo of a cat"
    assert clip.tokens("a photo of a cat", {}) == [320, 1125, 539, 320, 2368]


def test_the_package_with_the_vocabulary_is_read_and_not_imported():
    code = (
        "import sys; from pipeline.xdecoder.tokenizer import clip_tokenizer; clip_tokenizer();"
        "print({'open_clip', 'torchvision', 'transformers'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.importlib.metadata, "files", none)
    with pytest.raises(UserError, match="pip install --no-deps open_clip_torch"):
        vocabulary_path()


def test_prompts():
    assert len(CLASSES) == 133 and len(set(CLASSES)) == 133
    spoken = prompts("building-other-merged")
    assert len(spoken) == len(set(spoken)) == 81
    assert spoken[:2] == ["building.", "a photo of a building."]
    assert prompts("wall-brick")[0] == "wall-brick."
    assert prompts("door-stuff")[0] == "door."

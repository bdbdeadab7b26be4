"""CLIP's byte pair encoding: sentences to token ids.

The vocabulary is the file that the PyPI package open_clip_torch carries; it is found through the
package's metadata and read, nothing of the package is imported (it would pull in torchvision).
"""

import functools
import gzip
import importlib.metadata
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UserError

PACKAGE = "open_clip_torch"
VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
NUM_MERGES = 48894  # of the lines after the header; CLIP uses no more
WORD_END = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
# letters (word characters that are no digit, number or underscore), one number, or a run of signs
PIECES = re.compile(rf"{CONTRACTIONS}|[^\W\d_]+|\d|(?:_|[^\w\s])+")


def byte_alphabet() -> dict[int, str]:
    """Return a printable character for each byte: itself, or one from 256 on."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}


ALPHABET = byte_alphabet()


def pieces_of(text: str) -> list[str]:
    """Return the words, numbers and runs of signs of a lower-case text; tokens end with them.

    Numbers that are no digits, such as a raised two, count as letters to `re` but stand alone to
    CLIP: pieces with one are taken apart.
    """
    pieces = []
    for piece in PIECES.findall(text):
        if piece.isascii():
            pieces.append(piece)
        else:
            runs = itertools.groupby(piece, lambda c: unicodedata.category(c).startswith("N"))
            for is_number, run in runs:
                pieces.extend(run if is_number else ["".join(run)])
    return pieces


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary and the order in which pairs are merged."""

    ids: dict[str, int]  # token -> id
    ranks: dict[tuple[str, str], int]  # pair -> its place in the list of merges

    def encode(self, sentences: Sequence[str], context: int) -> np.ndarray:
        """Return ids [B, context] int64, padded with the end token.

        Sentences too long are cut so that their last token is the end token.

        Args:
            sentences: B texts; upper case and runs of white space do not matter.
            context: tokens per row.
        """
        rows = np.full((len(sentences), context), self.ids[END], np.int64)
        known: dict[str, list[int]] = {}  # class names and templates repeat a few hundred words
        for row, sentence in zip(rows, sentences, strict=True):
            tokens = [self.ids[START], *self.tokens(sentence, known)][: context - 1]
            row[: len(tokens)] = tokens
        return rows

    def tokens(self, sentence: str, known: dict[str, list[int]]) -> list[int]:
        """Return the ids of a sentence, without start and end.

        Args:
            sentence: any text.
            known: ids of pieces met before; new ones are added.
        """
        text = unicodedata.normalize("NFC", sentence).lower()
        pieces = pieces_of(text)
        for piece in pieces:
            if piece not in known:
                symbols = [ALPHABET[byte] for byte in piece.encode()]
                known[piece] = [self.ids[token] for token in self._merge(symbols)]
        return [number for piece in pieces for number in known[piece]]

    def _merge(self, symbols: list[str]) -> list[str]:
        """Return the symbols of one piece after merging, earliest listed pair first."""
        symbols = [*symbols[:-1], symbols[-1] + WORD_END]
        while len(symbols) > 1:
            pairs = list(zip(symbols[:-1], symbols[1:], strict=True))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            merged, i = [], 0
            while i < len(symbols):
                is_pair = i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == best
                merged.append("".join(best) if is_pair else symbols[i])
                i += 2 if is_pair else 1
            symbols = merged
        return symbols


def tokenizer_of(merges: Iterable[str]) -> Tokenizer:
    """Return the tokenizer of a list of merges, 'left right' a line, without the header."""
    pairs = [tuple(line.split()) for line in merges]
    letters = list(ALPHABET.values())
    vocabulary = [*letters, *(letter + WORD_END for letter in letters)]
    vocabulary += ["".join(pair) for pair in pairs] + [START, END]
    ids = {token: number for number, token in enumerate(vocabulary)}
    return Tokenizer(ids, {pair: rank for rank, pair in enumerate(pairs)})


@functools.cache
def clip_tokenizer() -> Tokenizer:
    """Return CLIP's own tokenizer, 49408 tokens.

    Raises:
        UserError: the package that carries the vocabulary is not installed.
    """
    path = vocabulary_path()
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return tokenizer_of(lines[1 : NUM_MERGES + 1])


def vocabulary_path() -> Path:
    """Return where the vocabulary file lies.

    Raises:
        UserError: it is not there.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == VOCABULARY_FILE:
            return Path(file.locate())
    raise UserError(
        f"CLIP vocabulary: {VOCABULARY_FILE} must be installed, got none; "
        f"run 'pip install --no-deps {PACKAGE}'"
    )

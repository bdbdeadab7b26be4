"""Look at 8 or 32 bytes of text at once, inside numba.

Each search compares a vector of bytes and counts the zeros before the first hit; plain loops over
text take six times as long, and LLVM does not turn a loop that stops at a hit into vectors.
"""

from collections.abc import Callable

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

WIDTH = 32

Vector = ir.Value
Hits = Callable[[ir.IRBuilder, Vector], Vector]


def _constant(byte: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(8), WIDTH), [byte] * WIDTH)


def _any_of(builder: ir.IRBuilder, text: Vector, wanted: bytes) -> Vector:
    hits = [builder.icmp_unsigned("==", text, _constant(byte)) for byte in wanted]
    found = hits[0]
    for hit in hits[1:]:
        found = builder.or_(found, hit)
    return found


def _load(context, builder, kind, text, at, loaded: ir.Type) -> Vector:
    array = context.make_array(kind)(context, builder, text)
    start = builder.gep(array.data, [at])
    return builder.load(builder.bitcast(start, loaded.as_pointer()), align=1)


def _searcher(hits: Hits):
    """Return an intrinsic (text, at) -> how many of the next 32 bytes come before the first hit."""

    @intrinsic
    def search(typing_context, text, at):
        def generate(context, builder, signature, arguments):
            vector = ir.VectorType(ir.IntType(8), WIDTH)
            loaded = _load(context, builder, signature.args[0], *arguments, vector)
            mask = builder.bitcast(hits(builder, loaded), ir.IntType(WIDTH))
            first = builder.cttz(mask, ir.Constant(ir.IntType(1), 0))
            return builder.zext(first, ir.IntType(64))

        return types.int64(text, types.int64), generate

    return search


@intrinsic
def load_word(typing_context, text, at):
    """Return the 8 bytes from `at` on as one little-endian number."""

    def generate(context, builder, signature, arguments):
        return _load(context, builder, signature.args[0], *arguments, ir.IntType(64))

    return types.uint64(text, types.int64), generate


_ends_string = _searcher(lambda builder, text: _any_of(builder, text, b'"\\'))
_is_mark = _searcher(
    lambda builder, text: builder.or_(
        _any_of(builder, text, b'",'),
        _any_of(builder, builder.or_(text, _constant(0x20)), b"{}"),  # and [ and ]
    )
)


@numba.njit(cache=True, nogil=True)
def find_string_end(text, i):
    """Return where the next quote or backslash lies from `i` on; the text's length if nowhere."""
    size = len(text)
    while i + WIDTH <= size:
        skipped = _ends_string(text, i)
        i += skipped
        if skipped < WIDTH:
            return i
    while i < size and text[i] != 34 and text[i] != 92:
        i += 1
    return i


@numba.njit(cache=True, nogil=True)
def find_mark(text, i):
    """Return where the next of " , { } [ ] lies from `i` on; the text's length if nowhere."""
    size = len(text)
    while i + WIDTH <= size:
        skipped = _is_mark(text, i)
        i += skipped
        if skipped < WIDTH:
            return i
    while i < size:
        byte = text[i] | np.uint8(32)
        # '[' and ']' are '{' and '}' without that bit; so is ',' with it, '"' has it
        if text[i] == 34 or text[i] == 44 or byte == 123 or byte == 125:
            return i
        i += 1
    return i

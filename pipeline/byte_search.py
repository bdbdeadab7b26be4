"""Look at 8, 32 or 64 bytes of text at once, inside numba.

A vector of bytes is compared and becomes a number whose bits say where the hits are. Plain loops
over nuScenes' tables take 2.7 times as long: LLVM makes no vectors of a loop that stops at a hit.
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

WIDTH = 64
_NARROW = 32  # for the ends of strings, which are mostly near

Value = ir.Value


def _any_of(builder: ir.IRBuilder, text: Value, wanted: bytes, also: int = 0) -> Value:
    """Return for each byte whether it, with the bits of `also` set, is one of the wanted ones."""
    if also:
        text = builder.or_(text, ir.Constant(text.type, [also] * text.type.count))
    constants = (ir.Constant(text.type, [byte] * text.type.count) for byte in wanted)
    found, *hits = (builder.icmp_unsigned("==", text, constant) for constant in constants)
    for hit in hits:
        found = builder.or_(found, hit)
    return found


def _load(context, builder, signature, arguments, loaded: ir.Type) -> Value:
    text, at = arguments
    array = context.make_array(signature.args[0])(context, builder, text)
    start = builder.gep(array.data, [at])
    return builder.load(builder.bitcast(start, loaded.as_pointer()), align=1)


@intrinsic
def load_word(typing_context, text, at):
    """Return the 8 bytes from `at` on as one little-endian number."""

    def generate(context, builder, signature, arguments):
        return _load(context, builder, signature, arguments, ir.IntType(64))

    return types.uint64(text, types.int64), generate


@intrinsic
def lowest_bit(typing_context, mask):
    """Return the place of the lowest bit that is set."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def _load_marks(typing_context, text, at):
    def generate(context, builder, signature, arguments):
        vector = ir.VectorType(ir.IntType(8), WIDTH)
        loaded = _load(context, builder, signature, arguments, vector)
        brackets = _any_of(builder, loaded, b"{}", also=32)  # [ and ] are { and } without that bit
        hits = builder.or_(_any_of(builder, loaded, b'",\\'), brackets)
        return builder.bitcast(hits, ir.IntType(WIDTH))

    return types.uint64(text, types.int64), generate


@intrinsic
def _string_end_within(typing_context, text, at):
    """Return how many of the next bytes come before a quote or backslash, all if none is one."""

    def generate(context, builder, signature, arguments):
        vector = ir.VectorType(ir.IntType(8), _NARROW)
        loaded = _load(context, builder, signature, arguments, vector)
        mask = builder.bitcast(_any_of(builder, loaded, b'"\\'), ir.IntType(_NARROW))
        first = builder.cttz(mask, ir.Constant(ir.IntType(1), 0))
        return builder.zext(first, ir.IntType(64))

    return types.int64(text, types.int64), generate


@numba.njit(cache=True, nogil=True)
def find_marks(text, at):
    """Return which of the next 64 bytes are quotes, backslashes, commas or brackets, as bits."""
    if at + WIDTH <= len(text):
        return _load_marks(text, at)
    mask = np.uint64(0)
    for i in range(at, len(text)):
        byte = text[i]
        if (byte == 34 or byte == 92 or byte == 44 or byte == 91 or byte == 93 or byte == 123
                or byte == 125):  # fmt: skip
            mask |= np.uint64(1) << np.uint64(i - at)
    return mask


@numba.njit(cache=True, nogil=True)
def find_string_end(text, i):
    """Return where the next quote or backslash lies from `i` on; the text's length if nowhere."""
    size = len(text)
    while i + _NARROW <= size:
        skipped = _string_end_within(text, i)
        i += skipped
        if skipped < _NARROW:
            return i
    while i < size and text[i] != 34 and text[i] != 92:
        i += 1
    return i

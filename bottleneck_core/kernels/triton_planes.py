"""Planes of 16-bit words: a word's codes become fp16, most of them two words at a time.

A word holds several values; value i of each word is plane i. fp16 has one plane, byte codes have two, nibbles four:
plane 0 the low byte's low nibble, 1 its high one, 2 and 3 the high byte's. 0x6400 is fp16's 1024, whose last bits count
ones: a code in them is the code plus 1024, which is subtracted, or left to leave with the score (`folds`).

Legend: N tokens of a tile, C columns, E words of a row (the group's). `T` is a `plan.Tile`.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import struct

import triton
import triton.language as tl

from bottleneck_core.kernels.packed import NF4_LEVELS
from bottleneck_core.kernels.triton_tile import BLOCK, CODE, KIND, nf4_level


@triton.constexpr_function
def folds(T, fold):
    """Whether a key's codes keep their packing's offset."""
    return fold and T[12] == "columns" and T[0] in ("q4_0", "q8_0")


def _nf4_instructions() -> str:
    """Two words to four planes of two levels. A permutation looks a word's four nibbles up in a table of eight bytes.

    The levels' low and high bytes make two tables each; bit 3 of a nibble chooses between them by another permutation.
    """
    bits = [int.from_bytes(struct.pack("<e", level), "little") for level in NF4_LEVELS]
    tables = []
    for shift in (0, 8):
        parts = [(level >> shift) & 0xFF for level in bits]
        tables += [sum(parts[at + i] << (8 * i) for i in range(4)) for at in (0, 4, 8, 12)]
    low, high = tables[:4], tables[4:]
    lines = [".reg .b32 s, t, l0, l1, h0, h1, a0, a1, b0, b1;"]
    lines += ["shr.b32 t, $4, 1;", "lop3.b32 t, t, 0x44444444, 0x32103210, 0xea;", "and.b32 s, $4, 0x77777777;"]
    for word in "ab":
        for name, table in (("l", low), ("h", high)):
            for half in (0, 1):
                first, second = table[2 * half : 2 * half + 2]
                lines += [f"mov.b32 {word}0, {first:#x};", f"mov.b32 {word}1, {second:#x};"]
                lines += [f"prmt.b32 {name}{half}, {word}0, {word}1, s;"]
        lines += ["prmt.b32 l0, l0, l1, t;", "prmt.b32 h0, h0, h1, t;"]
        lines += [f"prmt.b32 {word}0, l0, h0, 0x5140;", f"prmt.b32 {word}1, l0, h0, 0x7362;"]
        lines += ["shr.b32 s, s, 16;", "shr.b32 t, t, 16;"] if word == "a" else []
    lines += ["prmt.b32 $0, a0, b0, 0x5410;", "prmt.b32 $1, a0, b0, 0x7632;"]
    lines += ["prmt.b32 $2, a1, b1, 0x5410;", "prmt.b32 $3, a1, b1, 0x7632;"]
    return "{" + " ".join(lines) + "}"


NF4: tl.constexpr = tl.constexpr(_nf4_instructions())


@triton.constexpr_function
def packing(T, PLANE, keep_offset):
    """Instructions from two words to plane PLANE of both as fp16: mask, and 1024's exponent; then its offset leaves.

    A high nibble counts 16 times: it comes down by a multiplication, with the offset in the same instruction.
    """
    if T[0] == "q8_0":
        mask, bits, truth, high = 0x00FF00FF, 0x64806480, 0x6A, PLANE == 1
        offset = "mov.b32 c, 0x64806480; sub.f16x2 $0, t, c;"
    else:
        mask, bits, truth, high = 0x00F000F0 if PLANE % 2 else 0x000F000F, 0x64006400, 0xEA, PLANE > 1
        offset = "mov.b32 c, 0x64086408; sub.f16x2 $0, t, c;"
        if PLANE % 2:
            offset = "mov.b32 c, 0x2c002c00; mov.b32 d, 0xd480d480; fma.rn.f16x2 $0, t, c, d;"
    word = "t" if high else "$1"
    shift = "shr.u32 t, $1, 8; " if high else ""
    if keep_offset:
        return f"{{.reg .b32 t; {shift}lop3.b32 $0, {word}, {mask:#x}, {bits:#x}, 0x6a;}}"
    return f"{{.reg .b32 t, c, d; {shift}lop3.b32 t, {word}, {mask:#x}, {bits:#x}, {truth:#x}; {offset}}}"


@triton.jit
def plane(words, PLANE: tl.constexpr, T: tl.constexpr, PLAIN: tl.constexpr, OFFSET_IN: tl.constexpr = False):
    """(N, E) fp16: plane PLANE's codes as numbers, scale left out. 0x6400 is 1024, whose last bits count ones.

    PLAIN: in Triton's own operations, for the interpreter; else in instructions on two words at a time.
    OFFSET_IN: the packing's offset stays in, and a high nibble counts 16 times.
    """
    if OFFSET_IN and PLAIN:
        SHIFT: tl.constexpr = 8 if (T[KIND] == "q8_0" and PLANE == 1) or PLANE > 1 else 0
        MASK: tl.constexpr = 0xFF if T[KIND] == "q8_0" else (0xF0 if PLANE % 2 == 1 else 0xF)
        BITS: tl.constexpr = 0x6480 if T[KIND] == "q8_0" else 0x6400
        out = (((words >> SHIFT) & MASK) ^ BITS).to(tl.uint16).to(tl.float16, bitcast=True)
    elif OFFSET_IN or ((T[KIND] == "q4_0" or T[KIND] == "q8_0") and not PLAIN):
        out = tl.inline_asm_elementwise(
            packing(T, PLANE, OFFSET_IN), "=r,r", [words], dtype=tl.float16, is_pure=True, pack=2
        )
    elif T[KIND] == "q4_0":
        out = ((((words >> (4 * PLANE)) & 0xF) | 0x6400).to(tl.uint16)).to(tl.float16, bitcast=True) - 1032.0
    elif T[KIND] == "q8_0":
        out = ((((words >> (8 * PLANE)) & 0xFF) ^ 0x6480).to(tl.uint16)).to(tl.float16, bitcast=True) - 1152.0
    elif T[KIND] == "nf4":
        if PLAIN:
            out = nf4_level((words >> (4 * PLANE)) & 0xF)
        else:
            out = tl.inline_asm_elementwise(
                NF4, "=r,=r,=r,=r,r", [words], dtype=(tl.float16, tl.float16, tl.float16, tl.float16),
                is_pure=True, pack=2,
            )[PLANE]  # fmt: skip
    elif T[KIND] == "fp8":  # e4m3 in fp16's places has an exponent that is 8 too small
        bits = words if PLANE == 1 else words << 8
        out = (((bits & 0x8000) | ((bits & 0x7F00) >> 1)).to(tl.uint16)).to(tl.float16, bitcast=True) * 256.0
    else:
        out = words
    return out


@triton.jit
def key_offset(q0, q1, q2, q3, T: tl.constexpr):
    """(C,) what the offsets of the codes' packing add to a score: 1024 + 8, 16 times (64 + 8), or 1024 + 128."""
    LOW: tl.constexpr = 1152.0 if T[KIND] == "q8_0" else 1032.0
    out = tl.sum(q0.to(tl.float32), 0) * LOW + tl.sum(q1.to(tl.float32), 0) * 1152.0
    if T[CODE] != T[BLOCK]:
        out += tl.sum(q2.to(tl.float32), 0) * LOW + tl.sum(q3.to(tl.float32), 0) * 1152.0
    return out

"""The Triton kernel of decode attention that reads packed codes as 16-bit words, for caches of few bits a value.

As `triton_decode.spans`, without the fp16 window. There a byte is a matrix element; here a 16-bit word is, because the
tensor cores' operands are 16 bits wide: words go from memory to the operand's registers as they lie (`ldmatrix` can
transpose them), and codes become fp16 there, two a register, by one logic operation and one subtraction. A word holds
several values: value i of each word is plane i, and each plane is a product of its own. Since the order of a contracted
axis is free, the queries are permuted instead of the codes.

One warp is one program: nothing waits at barriers, and many programs a multiprocessor hide memory's latency.

Legend: N tokens of a tile, C columns (one a query head), E words of a row (the group's). `T` is a `plan.Tile`.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import struct

import triton
import triton.language as tl

from bottleneck_core.kernels.packed import NF4_LEVELS
from bottleneck_core.kernels.triton_decode import (
    BLOCK,
    BLOCKS,
    CODE,
    GROUP_BLOCKS,
    GROUP_ELEMENTS,
    HEAD_DIM,
    KIND,
    OFFSET,
    ROW,
    SCALES,
    STEP,
    WIDTH,
    WORDS,
    nf4_level,
    null_logit,
    page_rows,
    product,
)


@triton.jit
def word_places(block0, PLANE: tl.constexpr, T: tl.constexpr):
    """(E,) the place in the unpacked row of plane PLANE's value of each word."""
    j = tl.arange(0, T[WORDS])
    if T[KIND] == "fp16":
        return block0 * T[BLOCK] + j
    HALF: tl.constexpr = T[CODE] // 2  # words a block
    base = (block0 + j // HALF) * T[BLOCK] + 2 * (j % HALF)
    if T[CODE] == T[BLOCK]:
        return base + PLANE
    return base + PLANE // 2 + (PLANE % 2) * (T[BLOCK] // 2)


@triton.jit
def word_mine(head, block0, PLANE: tl.constexpr, T: tl.constexpr, REP: tl.constexpr):
    """(E, C) whether plane PLANE's value of each word is of the column's own cached head, and (E,) its place in it."""
    place = word_places(block0, PLANE, T)
    PER_WORD: tl.constexpr = 1 if T[KIND] == "fp16" else 2
    inside = (tl.arange(0, T[WORDS]) < T[GROUP_ELEMENTS] // PER_WORD) & (place < T[WIDTH])
    mine = ((place // T[HEAD_DIM])[:, None] == (head // REP)[None, :]) & (head >= 0)[None, :]
    return mine & inside[:, None], place % T[HEAD_DIM]


@triton.jit
def word_queries(
    q, batch, head, block0, PLANE: tl.constexpr, T: tl.constexpr, H: tl.constexpr, REP: tl.constexpr, KT: tl.constexpr,
    FOLD: tl.constexpr,
):  # fmt: skip
    """(E, C) each column's query at the places of its key head in plane PLANE, 0 elsewhere."""
    mine, d = word_mine(head, block0, PLANE, T, REP)
    address = (batch * H + head)[None, :] * KT + T[OFFSET] + d[:, None]
    query = tl.load(q + address, mask=mine, other=0.0)
    if folds(T, FOLD) and T[CODE] != T[BLOCK] and PLANE % 2 == 1:
        query = query.to(tl.float32) / 16
    return query.to(tl.float16)


@triton.jit
def word_rows(
    codes, batch, start, visible, block0, T: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr, TURNED: tl.constexpr
):
    """(N, E) the group's words of N rows from position `start` on; TURNED: (E, N)."""
    PER_WORD: tl.constexpr = 1 if T[KIND] == "fp16" else 2
    if T[KIND] == "fp16":
        row = page_rows(codes, batch, start, tl.float16, T[ROW], PAGE)
    else:
        row = page_rows(codes, batch, start, tl.uint16, T[ROW] // PER_WORD, PAGE)
    row += block0 * (T[CODE] // PER_WORD)
    j = tl.arange(0, T[WORDS])
    n = tl.arange(0, N)
    inside = j < T[GROUP_ELEMENTS] // PER_WORD
    if TURNED:
        address = n[None, :] * (T[ROW] // PER_WORD) + j[:, None]
        mask = visible[None, :] & inside[:, None]
    else:
        address = n[:, None] * (T[ROW] // PER_WORD) + j[None, :]
        mask = visible[:, None] & inside[None, :]
    return tl.load(row + address, mask=mask, other=0)


@triton.jit
def block_scales(scales, batch, start, visible, block, T: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr):
    """(N,) the scales of one block of N rows."""
    row = page_rows(scales, batch, start, tl.float16, T[BLOCKS], PAGE)
    return tl.load(row + block + tl.arange(0, N) * T[BLOCKS], mask=visible, other=0.0)


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
def packing(T, PLANE):
    """Instructions from two words to plane PLANE of both as fp16, with the offset: mask, and 1024's exponent."""
    if T[0] == "q8_0":
        mask, bits, high = 0x00FF00FF, 0x64806480, PLANE == 1
    else:
        mask, bits, high = 0x00F000F0 if PLANE % 2 else 0x000F000F, 0x64006400, PLANE > 1
    shift = "shr.b32 t, $1, 8; " if high else ""
    return f"{{.reg .b32 t; {shift}lop3.b32 $0, {'t' if high else '$1'}, {mask:#x}, {bits:#x}, 0x6a;}}"


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
    elif OFFSET_IN:
        out = tl.inline_asm_elementwise(packing(T, PLANE), "=r,r", [words], dtype=tl.float16, is_pure=True, pack=2)
    elif T[KIND] == "q4_0":
        if PLAIN:
            out = ((((words >> (4 * PLANE)) & 0xF) | 0x6400).to(tl.uint16)).to(tl.float16, bitcast=True) - 1032.0
        elif PLANE == 0:
            out = tl.inline_asm_elementwise(
                "{.reg .b32 t, c; lop3.b32 t, $1, 0x000f000f, 0x64006400, 0xea; mov.b32 c, 0x64086408;"
                " sub.f16x2 $0, t, c;}",
                "=r,r", [words], dtype=tl.float16, is_pure=True, pack=2,
            )  # fmt: skip
        elif PLANE == 1:
            out = tl.inline_asm_elementwise(
                "{.reg .b32 t, c, d; lop3.b32 t, $1, 0x00f000f0, 0x64006400, 0xea; mov.b32 c, 0x2c002c00;"
                " mov.b32 d, 0xd480d480; fma.rn.f16x2 $0, t, c, d;}",
                "=r,r", [words], dtype=tl.float16, is_pure=True, pack=2,
            )  # fmt: skip
        elif PLANE == 2:
            out = tl.inline_asm_elementwise(
                "{.reg .b32 t, c; shr.u32 t, $1, 8; lop3.b32 t, t, 0x000f000f, 0x64006400, 0xea;"
                " mov.b32 c, 0x64086408; sub.f16x2 $0, t, c;}",
                "=r,r", [words], dtype=tl.float16, is_pure=True, pack=2,
            )  # fmt: skip
        else:
            out = tl.inline_asm_elementwise(
                "{.reg .b32 t, c, d; shr.u32 t, $1, 8; lop3.b32 t, t, 0x00f000f0, 0x64006400, 0xea;"
                " mov.b32 c, 0x2c002c00; mov.b32 d, 0xd480d480; fma.rn.f16x2 $0, t, c, d;}",
                "=r,r", [words], dtype=tl.float16, is_pure=True, pack=2,
            )  # fmt: skip
    elif T[KIND] == "q8_0":
        if PLAIN:
            out = ((((words >> (8 * PLANE)) & 0xFF) ^ 0x6480).to(tl.uint16)).to(tl.float16, bitcast=True) - 1152.0
        elif PLANE == 0:
            out = tl.inline_asm_elementwise(
                "{.reg .b32 t, c; lop3.b32 t, $1, 0x00ff00ff, 0x64806480, 0x6a; mov.b32 c, 0x64806480;"
                " sub.f16x2 $0, t, c;}",
                "=r,r", [words], dtype=tl.float16, is_pure=True, pack=2,
            )  # fmt: skip
        else:
            out = tl.inline_asm_elementwise(
                "{.reg .b32 t, c; shr.u32 t, $1, 8; lop3.b32 t, t, 0x00ff00ff, 0x64806480, 0x6a;"
                " mov.b32 c, 0x64806480; sub.f16x2 $0, t, c;}",
                "=r,r", [words], dtype=tl.float16, is_pure=True, pack=2,
            )  # fmt: skip
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
def spread(
    scales, batch, start, visible, block0, T: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr, TURNED: tl.constexpr
):
    """(N, E) fp16: each word's scale; TURNED: (E, N). The choice by word is known when the program is compiled."""
    AXIS: tl.constexpr = 0 if TURNED else 1
    block = tl.expand_dims(tl.arange(0, T[WORDS]) // (T[CODE] // 2), 1 - AXIS)
    out = tl.expand_dims(block_scales(scales, batch, start, visible, block0, T, N, PAGE), AXIS)
    COUNT: tl.constexpr = T[GROUP_BLOCKS]
    for b in tl.static_range(1, COUNT):
        other = block_scales(scales, batch, start, visible, block0 + b, T, N, PAGE)
        out = tl.where(block >= b, tl.expand_dims(other, AXIS), out)
    return out


@triton.constexpr_function
def folds(T, fold):
    """Whether a key's codes keep their packing's offset."""
    return fold and T[12] == "columns" and T[0] in ("q4_0", "q8_0")


@triton.jit
def key_offset(q0, q1, q2, q3, T: tl.constexpr):
    """(C,) what the offsets of the codes' packing add to a score: 1024 + 8, 16 times (64 + 8), or 1024 + 128."""
    LOW: tl.constexpr = 1152.0 if T[KIND] == "q8_0" else 1032.0
    out = tl.sum(q0.to(tl.float32), 0) * LOW + tl.sum(q1.to(tl.float32), 0) * 1152.0
    if T[CODE] != T[BLOCK]:
        out += tl.sum(q2.to(tl.float32), 0) * LOW + tl.sum(q3.to(tl.float32), 0) * 1152.0
    return out


@triton.jit
def word_scores(
    codes, scales, batch, start, visible, head, block0, q0, q1, q2, q3, offset,
    T: tl.constexpr, REP: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr, WIDE: tl.constexpr, FOLD: tl.constexpr,
):  # fmt: skip
    """(N, C) unscaled scores of one key part for N rows; q0 to q3 are the queries of the planes."""
    words = word_rows(codes, batch, start, visible, block0, T, N, PAGE, False)
    if T[SCALES] == "codes":
        factor = spread(scales, batch, start, visible, block0, T, N, PAGE, False)
        out = product(plane(words, 0, T, WIDE) * factor, q0, WIDE)
        if T[KIND] != "fp16":
            out += product(plane(words, 1, T, WIDE) * factor, q1, WIDE)
        if T[CODE] != T[BLOCK]:
            out += product(plane(words, 2, T, WIDE) * factor, q2, WIDE)
            out += product(plane(words, 3, T, WIDE) * factor, q3, WIDE)
    else:
        OFFSET_IN: tl.constexpr = folds(T, FOLD)
        out = product(plane(words, 0, T, WIDE, OFFSET_IN), q0, WIDE)
        if T[KIND] != "fp16":
            out += product(plane(words, 1, T, WIDE, OFFSET_IN), q1, WIDE)
        if T[CODE] != T[BLOCK]:
            out += product(plane(words, 2, T, WIDE, OFFSET_IN), q2, WIDE)
            out += product(plane(words, 3, T, WIDE, OFFSET_IN), q3, WIDE)
        if OFFSET_IN:
            out -= offset[None, :]
    if T[SCALES] == "columns":
        block = (head // REP) * T[HEAD_DIM] // T[BLOCK] - block0
        scale = block_scales(scales, batch, start, visible, block0, T, N, PAGE).to(tl.float32)[:, None]
        COUNT: tl.constexpr = T[GROUP_BLOCKS]
        for b in tl.static_range(1, COUNT):
            other = block_scales(scales, batch, start, visible, block0 + b, T, N, PAGE).to(tl.float32)
            scale = tl.where((block >= b)[None, :], other[:, None], scale)
        out *= scale
    return out


@triton.jit
def word_outputs(out, total, head, block0, line, PLANE: tl.constexpr, T: tl.constexpr, REP: tl.constexpr):
    """Store plane PLANE's sums (E, C) at the places of each column's own head."""
    mine, d = word_mine(head, block0, PLANE, T, REP)
    tl.store(out + line[None, :] * T[HEAD_DIM] + d[:, None], total, mask=mine)


@triton.jit
def null_values(null_v, head, block0, PLANE: tl.constexpr, T: tl.constexpr, REP: tl.constexpr):
    """(E, C) the null value at the places of each column's own head in plane PLANE."""
    mine, d = word_mine(head, block0, PLANE, T, REP)
    return tl.load(null_v + (head // REP)[None, :] * T[HEAD_DIM] + d[:, None], mask=mine, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["tokens", "tiles_a_split", "splits", "lines"])
def word_spans(
    q, null_k, null_v, first, columns, out, lse,
    k0_codes, k0_scales, k1_codes, k1_scales, v_codes, v_scales,
    scale, tokens, tiles_a_split, splits, lines,
    K0: tl.constexpr, K1: tl.constexpr, V: tl.constexpr, PARTS: tl.constexpr,
    H: tl.constexpr, REP: tl.constexpr, KT: tl.constexpr, GROUPS: tl.constexpr,
    NULL_DIM: tl.constexpr, PAGE: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
    HAS_NULL: tl.constexpr, HAS_FIRST: tl.constexpr, FINAL: tl.constexpr, WIDE: tl.constexpr, FOLD: tl.constexpr,
):  # fmt: skip
    """Attention of one span of tokens, normalised: out (B, H, lines, V), lse (B, H, lines) in powers of two."""
    program = tl.program_id(0)
    group = program % GROUPS
    split = (program // GROUPS) % splits
    batch = program // GROUPS // splits
    head = tl.load(columns + (group * 2) * C + tl.arange(0, C))  # -1: no column
    scale2 = scale * 1.4426950408889634  # log2(e): the softmax runs in powers of two

    k0_block = group * K0[STEP]
    k0_q0 = word_queries(q, batch, head, k0_block, 0, K0, H, REP, KT, FOLD)
    k0_q1 = k0_q0
    k0_q2 = k0_q0
    k0_q3 = k0_q0
    if K0[KIND] != "fp16":
        k0_q1 = word_queries(q, batch, head, k0_block, 1, K0, H, REP, KT, FOLD)
    if K0[CODE] != K0[BLOCK]:
        k0_q2 = word_queries(q, batch, head, k0_block, 2, K0, H, REP, KT, FOLD)
        k0_q3 = word_queries(q, batch, head, k0_block, 3, K0, H, REP, KT, FOLD)
    k0_offset = key_offset(k0_q0, k0_q1, k0_q2, k0_q3, K0)
    k1_block = group * K1[STEP]
    k1_q0 = k0_q0
    k1_q1 = k0_q0
    k1_q2 = k0_q0
    k1_q3 = k0_q0
    if PARTS > 1:
        k1_q0 = word_queries(q, batch, head, k1_block, 0, K1, H, REP, KT, FOLD)
        if K1[KIND] != "fp16":
            k1_q1 = word_queries(q, batch, head, k1_block, 1, K1, H, REP, KT, FOLD)
        if K1[CODE] != K1[BLOCK]:
            k1_q2 = word_queries(q, batch, head, k1_block, 2, K1, H, REP, KT, FOLD)
            k1_q3 = word_queries(q, batch, head, k1_block, 3, K1, H, REP, KT, FOLD)
    k1_offset = key_offset(k1_q0, k1_q1, k1_q2, k1_q3, K1)
    v_block = group * V[STEP]

    # The running softmax, empty or with the null key in it.
    E: tl.constexpr = V[WORDS]
    E1: tl.constexpr = V[WORDS] if V[KIND] != "fp16" else 16
    E2: tl.constexpr = V[WORDS] if V[CODE] != V[BLOCK] else 16
    m = tl.full((C,), float("-inf"), tl.float32)
    mass = tl.zeros((N, C), tl.float32)
    sum0 = tl.zeros((E, C), tl.float32)
    sum1 = tl.zeros((E1, C), tl.float32)
    sum2 = tl.zeros((E2, C), tl.float32)
    sum3 = tl.zeros((E2, C), tl.float32)
    if HAS_NULL:
        logit = null_logit(q, null_k, batch, head, K0, NULL_DIM, H, REP, KT)
        if PARTS > 1:
            logit += null_logit(q, null_k, batch, head, K1, NULL_DIM, H, REP, KT)
        m = tl.where(split == 0, logit * scale2, m)
        mass = tl.where((split == 0) & (tl.arange(0, N) == 0)[:, None], mass + 1.0, mass)
        starting = tl.where(split == 0, head, -1)
        sum0 += null_values(null_v, starting, v_block, 0, V, REP)
        if V[KIND] != "fp16":
            sum1 += null_values(null_v, starting, v_block, 1, V, REP)
        if V[CODE] != V[BLOCK]:
            sum2 += null_values(null_v, starting, v_block, 2, V, REP)
            sum3 += null_values(null_v, starting, v_block, 3, V, REP)

    begin = 0
    if HAS_FIRST:
        begin = tl.load(first + batch)
    tile0 = tl.maximum(split * tiles_a_split, begin // N)
    tile1 = tl.minimum((split + 1) * tiles_a_split, (tokens + N - 1) // N)
    for tile in range(tile0, tile1):
        start = tile * N
        n = start + tl.arange(0, N)
        visible = (n >= begin) & (n < tokens)
        scores = word_scores(
            k0_codes, k0_scales, batch, start, visible, head, k0_block, k0_q0, k0_q1, k0_q2, k0_q3, k0_offset,
            K0, REP, N, PAGE, WIDE, FOLD,
        )  # fmt: skip
        if PARTS > 1:
            scores += word_scores(
                k1_codes, k1_scales, batch, start, visible, head, k1_block, k1_q0, k1_q1, k1_q2, k1_q3, k1_offset,
                K1, REP, N, PAGE, WIDE, FOLD,
            )  # fmt: skip
        scores = tl.where(visible[:, None], scores * scale2, float("-inf"))
        m_new = tl.maximum(m, tl.max(scores, 0))
        m_safe = tl.where(m_new == float("-inf"), 0.0, m_new)
        keep = tl.exp2(m - m_safe)
        weight = tl.exp2(scores - m_safe[None, :])
        mass = mass * keep[None, :] + weight
        m = m_new
        weight = weight.to(tl.float16)
        words = word_rows(v_codes, batch, start, visible, v_block, V, N, PAGE, True)
        if V[SCALES] == "codes":
            factor = spread(v_scales, batch, start, visible, v_block, V, N, PAGE, True)
            sum0 = sum0 * keep[None, :] + product(plane(words, 0, V, WIDE) * factor, weight, WIDE)
            sum1 = sum1 * keep[None, :] + product(plane(words, 1, V, WIDE) * factor, weight, WIDE)
            if V[CODE] != V[BLOCK]:
                sum2 = sum2 * keep[None, :] + product(plane(words, 2, V, WIDE) * factor, weight, WIDE)
                sum3 = sum3 * keep[None, :] + product(plane(words, 3, V, WIDE) * factor, weight, WIDE)
        else:
            sum0 = sum0 * keep[None, :] + product(plane(words, 0, V, WIDE), weight, WIDE)
            if V[KIND] != "fp16":
                sum1 = sum1 * keep[None, :] + product(plane(words, 1, V, WIDE), weight, WIDE)

    total = tl.sum(mass, 0)  # (C,)
    safe = tl.where(total > 0, total, 1.0)  # a span may be hidden wholly: its sums are 0
    share = (1.0 / safe)[None, :]
    line = (batch * H + head) * lines + split
    word_outputs(out, sum0 * share, head, v_block, line, 0, V, REP)
    if V[KIND] != "fp16":
        word_outputs(out, sum1 * share, head, v_block, line, 1, V, REP)
    if V[CODE] != V[BLOCK]:
        word_outputs(out, sum2 * share, head, v_block, line, 2, V, REP)
        word_outputs(out, sum3 * share, head, v_block, line, 3, V, REP)
    if not FINAL:
        tl.store(lse + line, tl.where(total > 0, m + tl.log2(safe), float("-inf")), mask=head >= 0)

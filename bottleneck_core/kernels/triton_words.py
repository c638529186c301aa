"""The Triton kernel of decode attention that reads packed codes as 16-bit words, for caches of few bits a value.

As `triton_decode.spans`, without the fp16 window. There a byte is a matrix element; here a 16-bit word is, because the
tensor cores' operands are 16 bits wide: words go from memory to the operand's registers as they lie (`ldmatrix` can
transpose them), and codes become fp16 there, two a register, by one logic operation and one subtraction. A word holds
several values: value i of each word is plane i, and each plane is a product of its own.

One warp is one program: nothing waits at barriers, and many programs a multiprocessor hide memory's latency.

Legend: N tokens of a tile, C columns (one a query head), E words of a row (the group's). `T` is a `plan.Tile`.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents

from bottleneck_core.kernels.triton_planes import folds, key_offset, plane
from bottleneck_core.kernels.triton_tile import (
    BLOCK,
    CODE,
    GROUP_BLOCKS,
    HEAD_DIM,
    KIND,
    SCALES,
    STEP,
    WORDS,
    null_logit,
    product,
    tiles_a_span,
)
from bottleneck_core.kernels.triton_word_rows import (
    block_scales,
    null_values,
    spread,
    word_outputs,
    word_queries,
    word_rows,
)


@triton.jit
def word_scores(
    code_page, scales, batch, start, visible, head, block0, q0, q1, q2, q3, offset,
    T: tl.constexpr, REP: tl.constexpr, N: tl.constexpr, C: tl.constexpr, PAGE: tl.constexpr, WIDE: tl.constexpr,
    FOLD: tl.constexpr,
):  # fmt: skip
    """(N, C) unscaled scores of one key part for N rows; q0 to q3 are the queries of the planes."""
    words = word_rows(code_page, batch, start, visible, block0, T, N, PAGE, False)
    if T[SCALES] == "codes":
        factor = spread(scales, T, False)
        out = product(plane(words, 0, T, WIDE) * factor, q0, WIDE)
        if T[KIND] != "fp16":
            out += product(plane(words, 1, T, WIDE) * factor, q1, WIDE)
        if T[CODE] != T[BLOCK]:
            out += product(plane(words, 2, T, WIDE) * factor, q2, WIDE)
            out += product(plane(words, 3, T, WIDE) * factor, q3, WIDE)
    else:
        OFFSET_IN: tl.constexpr = folds(T, FOLD)
        if OFFSET_IN:
            out = product(plane(words, 0, T, WIDE, True), q0, WIDE, tl.broadcast_to(-offset[None, :], (N, C)))
        else:
            out = product(plane(words, 0, T, WIDE), q0, WIDE)
        if T[KIND] != "fp16":
            out = product(plane(words, 1, T, WIDE, OFFSET_IN), q1, WIDE, out)
        if T[CODE] != T[BLOCK]:
            out = product(plane(words, 2, T, WIDE, OFFSET_IN), q2, WIDE, out)
            out = product(plane(words, 3, T, WIDE, OFFSET_IN), q3, WIDE, out)
    if T[SCALES] == "columns":
        block = (head // REP) * T[HEAD_DIM] // T[BLOCK] - block0
        scale = scales[0].to(tl.float32)[:, None]
        COUNT: tl.constexpr = T[GROUP_BLOCKS]
        for b in tl.static_range(1, COUNT):
            scale = tl.where((block >= b)[None, :], scales[b].to(tl.float32)[:, None], scale)
        out *= scale
    return out


@triton.jit(do_not_specialize=["tokens", "tiles_a_split", "splits", "lines"])
def word_spans(
    q, null_k, null_v, first, columns, counts, out, lse,
    k0_codes, k0_scales, k1_codes, k1_scales, v_codes, v_scales,
    scale, tokens, tiles_a_split, splits, lines,
    K0: tl.constexpr, K1: tl.constexpr, V: tl.constexpr, PARTS: tl.constexpr,
    H: tl.constexpr, REP: tl.constexpr, KT: tl.constexpr, GROUPS: tl.constexpr,
    NULL_DIM: tl.constexpr, PAGE: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
    HAS_NULL: tl.constexpr, HAS_FIRST: tl.constexpr, COUNTED: tl.constexpr, COUNT: tl.constexpr,
    FINAL: tl.constexpr, WIDE: tl.constexpr, FOLD: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Attention of one span of tokens, normalised: out (B, H, lines, V), lse (B, H, lines) in powers of two.

    COUNTED: `tokens` is read from counts[COUNT], and `tiles_a_split` is the least that a span takes.
    """
    if EARLY:
        gdc_launch_dependents()
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

    if COUNTED:
        tokens = tl.load(counts + COUNT)
        tiles_a_split = tiles_a_span(tokens, tiles_a_split, splits, N)
    begin = 0
    if HAS_FIRST:
        begin = tl.load(first + batch)
    tile0 = tl.maximum(split * tiles_a_split, begin // N)
    tile1 = tl.minimum((split + 1) * tiles_a_split, (tokens + N - 1) // N)
    # Codes are loaded ahead by the compiler's pipeline. It leaves out scales, two bytes each, and the pages' addresses:
    # those are loaded one tile before their use here, which waits for memory four times a tile otherwise.
    start = tile0 * N
    page = tl.minimum(start, tokens - 1) // PAGE
    after = tl.minimum(start + N, tokens - 1) // PAGE
    k0_page, k1_page, v_page = tl.load(k0_codes + page), tl.load(k1_codes + page), tl.load(v_codes + page)
    k0_now = block_scales(tl.load(k0_scales + page), batch, start, begin, tokens, k0_block, K0, N, PAGE)
    k1_now = block_scales(tl.load(k1_scales + page), batch, start, begin, tokens, k1_block, K1, N, PAGE)
    v_now = block_scales(tl.load(v_scales + page), batch, start, begin, tokens, v_block, V, N, PAGE)
    k0_after, k1_after, v_after = tl.load(k0_scales + after), tl.load(k1_scales + after), tl.load(v_scales + after)
    for tile in range(tile0, tile1):
        start = tile * N
        k0_next = block_scales(k0_after, batch, start + N, begin, tokens, k0_block, K0, N, PAGE)
        k1_next = k1_now
        if PARTS > 1:
            k1_next = block_scales(k1_after, batch, start + N, begin, tokens, k1_block, K1, N, PAGE)
        v_next = block_scales(v_after, batch, start + N, begin, tokens, v_block, V, N, PAGE)
        n = start + tl.arange(0, N)
        visible = (n >= begin) & (n < tokens)
        scores = word_scores(
            k0_page, k0_now, batch, start, visible, head, k0_block, k0_q0, k0_q1, k0_q2, k0_q3, k0_offset,
            K0, REP, N, C, PAGE, WIDE, FOLD,
        )  # fmt: skip
        if PARTS > 1:
            scores += word_scores(
                k1_page, k1_now, batch, start, visible, head, k1_block, k1_q0, k1_q1, k1_q2, k1_q3, k1_offset,
                K1, REP, N, C, PAGE, WIDE, FOLD,
            )  # fmt: skip
        scores = tl.where(visible[:, None], scores * scale2, float("-inf"))
        m_new = tl.maximum(m, tl.max(scores, 0))
        m_safe = tl.where(m_new == float("-inf"), 0.0, m_new)
        keep = tl.exp2(m - m_safe)
        weight = tl.exp2(scores - m_safe[None, :])
        mass = mass * keep[None, :] + weight
        m = m_new
        weight = weight.to(tl.float16)
        words = word_rows(v_page, batch, start, visible, v_block, V, N, PAGE, True)
        if V[SCALES] == "codes":
            factor = spread(v_now, V, True)
            sum0 = sum0 * keep[None, :] + product(plane(words, 0, V, WIDE) * factor, weight, WIDE)
            sum1 = sum1 * keep[None, :] + product(plane(words, 1, V, WIDE) * factor, weight, WIDE)
            if V[CODE] != V[BLOCK]:
                sum2 = sum2 * keep[None, :] + product(plane(words, 2, V, WIDE) * factor, weight, WIDE)
                sum3 = sum3 * keep[None, :] + product(plane(words, 3, V, WIDE) * factor, weight, WIDE)
        else:
            sum0 = sum0 * keep[None, :] + product(plane(words, 0, V, WIDE), weight, WIDE)
            if V[KIND] != "fp16":
                sum1 = sum1 * keep[None, :] + product(plane(words, 1, V, WIDE), weight, WIDE)
        k0_now, k1_now, v_now = k0_next, k1_next, v_next
        page = tl.minimum(start + N, tokens - 1) // PAGE
        after = tl.minimum(start + 2 * N, tokens - 1) // PAGE
        k0_page, v_page = tl.load(k0_codes + page), tl.load(v_codes + page)
        k0_after, v_after = tl.load(k0_scales + after), tl.load(v_scales + after)
        if PARTS > 1:
            k1_page, k1_after = tl.load(k1_codes + page), tl.load(k1_scales + after)

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

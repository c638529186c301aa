"""The Triton kernels of decode attention: one new query a batch row over packed pages, split along the tokens.

A program takes one batch row, one group of heads and one span of tokens. It reads each row once, for all heads of the
group: the queries stand in a block-diagonal matrix, so that one tensor-core product of the codes as they are stored
gives the scores of all heads, whatever their width. The products with zeros cost nothing: the kernel waits for memory.

Legend: N tokens of a tile, C columns (several a head, see `triton_softmax`), E stored elements of a row (the group's).
`K0`, `K1` and `V` are the `plan.Tile` of the key parts and of the value.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from bottleneck_core.kernels.triton_bytes import diagonal, first_block, key_scale_map, outputs
from bottleneck_core.kernels.triton_softmax import absorb, part_scores
from bottleneck_core.kernels.triton_tile import (
    BLOCK,
    CODE,
    ELEMENTS,
    HEAD_DIM,
    REACH,
    SCALE_COLUMNS,
    SCALES,
    null_logit,
    tiles_a_span,
)


@triton.jit(do_not_specialize=["tokens", "ring_from", "tiles_a_split", "splits", "lines", "line0"])
def spans(
    q, null_k, null_v, first, columns, counts, out, lse,
    k0_codes, k0_scales, k0_ring, k1_codes, k1_scales, k1_ring, v_codes, v_scales, v_ring,
    scale, tokens, ring_from, tiles_a_split, splits, lines, line0,
    K0: tl.constexpr, K1: tl.constexpr, V: tl.constexpr, PARTS: tl.constexpr,
    H: tl.constexpr, REP: tl.constexpr, KT: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr,
    NULL_DIM: tl.constexpr, PAGE: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
    HAS_NULL: tl.constexpr, HAS_FIRST: tl.constexpr, HAS_RING: tl.constexpr, COUNTED: tl.constexpr,
    FINAL: tl.constexpr, WIDE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Attention of one span of tokens, normalised: out (B, H, lines, V), lse (B, H, lines) in powers of two.

    A span writes line line0 + its number. FINAL: there is one span, and no lse is wanted. The last span takes the
    window, the first one the null key. COUNTED: `tokens` and `ring_from` are read from `counts`, and `tiles_a_split` is
    the least that a span takes.
    """
    if EARLY:
        gdc_launch_dependents()
    program = tl.program_id(0)
    group = program % GROUPS
    split = (program // GROUPS) % splits
    batch = program // GROUPS // splits
    head = tl.load(columns + (group * 2) * C + tl.arange(0, C))  # -1: no column
    column_block = tl.load(columns + (group * 2 + 1) * C + tl.arange(0, C))

    # Everything about the columns that does not change along the tokens.
    k0_block = first_block(group, K0, GROUP)
    k0_low0 = diagonal(q, batch, head, k0_block, 0, False, K0, H, REP, KT)
    k0_map0 = key_scale_map(head, k0_block, 0, K0, REP)
    k0_high0 = k0_low0
    k0_low1 = k0_low0
    k0_high1 = k0_low0
    k0_map1 = k0_map0
    if K0[CODE] != K0[BLOCK]:
        k0_high0 = diagonal(q, batch, head, k0_block, 0, True, K0, H, REP, KT)
    if K0[REACH] > 1:
        k0_low1 = diagonal(q, batch, head, k0_block, 1, False, K0, H, REP, KT)
        k0_map1 = key_scale_map(head, k0_block, 1, K0, REP)
        if K0[CODE] != K0[BLOCK]:
            k0_high1 = diagonal(q, batch, head, k0_block, 1, True, K0, H, REP, KT)
    k1_block = k0_block
    k1_low0 = k0_low0
    k1_high0 = k0_low0
    k1_low1 = k0_low0
    k1_high1 = k0_low0
    k1_map0 = k0_map0
    k1_map1 = k0_map0
    if PARTS > 1:
        k1_block = first_block(group, K1, GROUP)
        k1_low0 = diagonal(q, batch, head, k1_block, 0, False, K1, H, REP, KT)
        k1_map0 = key_scale_map(head, k1_block, 0, K1, REP)
        if K1[CODE] != K1[BLOCK]:
            k1_high0 = diagonal(q, batch, head, k1_block, 0, True, K1, H, REP, KT)
        if K1[REACH] > 1:
            k1_low1 = diagonal(q, batch, head, k1_block, 1, False, K1, H, REP, KT)
            k1_map1 = key_scale_map(head, k1_block, 1, K1, REP)
            if K1[CODE] != K1[BLOCK]:
                k1_high1 = diagonal(q, batch, head, k1_block, 1, True, K1, H, REP, KT)
    v_block = first_block(group, V, GROUP)
    value_map = ((v_block + tl.arange(0, V[SCALE_COLUMNS]))[:, None] == column_block[None, :]).to(tl.float16)
    scale2 = scale * 1.4426950408889634  # log2(e): the softmax runs in powers of two

    # The running softmax, empty or with the null key in it.
    m = tl.full((C,), float("-inf"), tl.float32)
    mass = tl.zeros((N, C), tl.float32)
    E: tl.constexpr = V[ELEMENTS]
    E_HIGH: tl.constexpr = V[ELEMENTS] if V[CODE] != V[BLOCK] else 16
    low_sum = tl.zeros((E, C), tl.float32)
    high_sum = tl.zeros((E_HIGH, C), tl.float32)
    if HAS_NULL:
        logit = null_logit(q, null_k, batch, head, K0, NULL_DIM, H, REP, KT)
        if PARTS > 1:
            logit += null_logit(q, null_k, batch, head, K1, NULL_DIM, H, REP, KT)
        m = tl.where(split == 0, logit * scale2, m)
        mass = tl.where((split == 0) & (tl.arange(0, N) == 0)[:, None], mass + 1.0, mass)
        starting = tl.where(split == 0, head, -1)
        mine, d = outputs(starting, column_block, v_block, False, V, REP)
        low_sum += tl.load(null_v + (head // REP)[None, :] * V[HEAD_DIM] + d[:, None], mask=mine, other=0.0)
        if V[CODE] != V[BLOCK]:
            mine, d = outputs(starting, column_block, v_block, True, V, REP)
            high_sum += tl.load(null_v + (head // REP)[None, :] * V[HEAD_DIM] + d[:, None], mask=mine, other=0.0)

    if COUNTED:
        tokens = tl.load(counts)
        ring_from = tl.load(counts + 1)
    begin = 0
    if HAS_FIRST:
        begin = tl.load(first + batch)
    end = tokens
    if HAS_RING:
        end = ring_from
    if COUNTED:
        tiles_a_split = tiles_a_span(end, tiles_a_split, splits, N)
    tile0 = tl.maximum(split * tiles_a_split, begin // N)
    tile1 = tl.minimum((split + 1) * tiles_a_split, (end + N - 1) // N)
    for tile in range(tile0, tile1):
        start = tile * N
        n = start + tl.arange(0, N)
        visible = (n >= begin) & (n < end)
        scores = part_scores(
            k0_codes, k0_scales, k0_ring, batch, start, visible, k0_block,
            k0_low0, k0_high0, k0_low1, k0_high1, k0_map0, k0_map1, False, K0, N, PAGE, WIDE,
        )  # fmt: skip
        if PARTS > 1:
            scores += part_scores(
                k1_codes, k1_scales, k1_ring, batch, start, visible, k1_block,
                k1_low0, k1_high0, k1_low1, k1_high1, k1_map0, k1_map1, False, K1, N, PAGE, WIDE,
            )  # fmt: skip
        m, mass, low_sum, high_sum = absorb(
            scores * scale2, v_codes, v_scales, v_ring, batch, start, visible, v_block, value_map,
            m, mass, low_sum, high_sum, False, V, N, PAGE, WIDE,
        )  # fmt: skip
    if HAS_RING:
        begin = tl.maximum(begin, ring_from)
        tile0 = begin // N
        tile1 = tl.where(split == splits - 1, (tokens + N - 1) // N, tile0)
        for tile in tl.range(tile0, tile1, num_stages=1):
            start = tile * N
            n = start + tl.arange(0, N)
            visible = (n >= begin) & (n < tokens)
            scores = part_scores(
                k0_codes, k0_scales, k0_ring, batch, start, visible, k0_block,
                k0_low0, k0_high0, k0_low1, k0_high1, k0_map0, k0_map1, True, K0, N, PAGE, WIDE,
            )  # fmt: skip
            if PARTS > 1:
                scores += part_scores(
                    k1_codes, k1_scales, k1_ring, batch, start, visible, k1_block,
                    k1_low0, k1_high0, k1_low1, k1_high1, k1_map0, k1_map1, True, K1, N, PAGE, WIDE,
                )  # fmt: skip
            m, mass, low_sum, high_sum = absorb(
                scores * scale2, v_codes, v_scales, v_ring, batch, start, visible, v_block, value_map,
                m, mass, low_sum, high_sum, True, V, N, PAGE, WIDE,
            )  # fmt: skip

    total = tl.sum(mass, 0)  # (C,)
    safe = tl.where(total > 0, total, 1.0)  # a span may be hidden wholly: its sums are 0
    share = 1.0 / safe
    line = (batch * H + head) * lines + line0 + split
    mine, d = outputs(head, column_block, v_block, False, V, REP)
    tl.store(out + line[None, :] * V[HEAD_DIM] + d[:, None], low_sum * share[None, :], mask=mine)
    if V[CODE] != V[BLOCK]:
        mine, d = outputs(head, column_block, v_block, True, V, REP)
        tl.store(out + line[None, :] * V[HEAD_DIM] + d[:, None], high_sum * share[None, :], mask=mine)
    if not FINAL:
        leads = head >= 0
        if V[SCALES] == "columns":  # several columns of a head: one of them writes
            leads = leads & (column_block == (head // REP) * V[HEAD_DIM] // V[BLOCK])
        tl.store(lse + line, tl.where(total > 0, m + tl.log2(safe), float("-inf")), mask=leads)


@triton.jit(do_not_specialize=["splits"])
def merge(parts, lse, out, splits, D: tl.constexpr, D_PAD: tl.constexpr, S: tl.constexpr, EARLY: tl.constexpr):
    """parts (B * H, splits, D) fp32 and lse (B * H, splits) of the spans -> out (B * H, D)."""
    if EARLY:  # started while the spans were still at work
        gdc_wait()
    line = tl.program_id(0)
    d = tl.arange(0, D_PAD)
    m = tl.full((1,), float("-inf"), tl.float32)
    total = tl.zeros((1,), tl.float32)
    acc = tl.zeros((D_PAD,), tl.float32)
    for start in range(0, splits, S):
        s = start + tl.arange(0, S)
        weight = tl.load(lse + line * splits + s, mask=s < splits, other=float("-inf"))
        values = tl.load(
            parts + (line * splits + s)[:, None] * D + d[None, :],
            mask=(s < splits)[:, None] & (d < D)[None, :],
            other=0.0,
        )  # (S, D)
        m_new = tl.maximum(m, tl.max(weight, 0))
        m_safe = tl.where(m_new == float("-inf"), 0.0, m_new)
        keep = tl.exp2(m - m_safe)
        weight = tl.exp2(weight - m_safe)
        total = total * keep + tl.sum(weight, 0)
        acc = acc * keep + tl.sum(values * weight[:, None], 0)
        m = m_new
    total = tl.where(total > 0, total, 1.0)
    tl.store(out + line * D + d, acc / total, mask=d < D)

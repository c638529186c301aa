"""The Triton kernels of decode attention: one new query a batch row over packed pages, split along the tokens.

A program takes one batch row, one group of heads and one span of tokens. It reads each row once, for all heads of the
group: the queries stand in a block-diagonal matrix, so that one tensor-core product of the codes as they are stored
gives the scores of all heads, whatever their width. The products with zeros cost nothing: the kernel waits for memory.

Scales stay away from the codes where they can: a key's scale multiplies the score, a value's scale the weight. So the
score matrix has a column for each pair of a query head and a block of values that the head reaches into; the columns of
one head have equal scores. A row's scales get to their columns by a product with a 0/1 matrix, which is exact. Where a
head spans many blocks the codes are multiplied instead (`SCALES` is "codes").

A weight times a scale can leave fp16's range. The scale's power of two therefore joins the exponent, under the same
running maximum, and only its mantissa multiplies.

Legend: N tokens of a tile, C columns, E stored elements of a row (the group's), M blocks of a row (the group's).
A constexpr `T` is a `plan.Tile`, what is fixed about one cached tensor; its fields are read by index.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from bottleneck_core.kernels.packed import NF4_LEVELS

# Fields of plan.Tile, in its order.
KIND: tl.constexpr = tl.constexpr(0)
HEAD_DIM: tl.constexpr = tl.constexpr(1)
BLOCK: tl.constexpr = tl.constexpr(2)
CODE: tl.constexpr = tl.constexpr(3)
WIDTH: tl.constexpr = tl.constexpr(4)
ROW: tl.constexpr = tl.constexpr(5)
BLOCKS: tl.constexpr = tl.constexpr(6)
STEP: tl.constexpr = tl.constexpr(7)
GROUP_ELEMENTS: tl.constexpr = tl.constexpr(8)
GROUP_BLOCKS: tl.constexpr = tl.constexpr(9)
ELEMENTS: tl.constexpr = tl.constexpr(10)
SCALE_COLUMNS: tl.constexpr = tl.constexpr(11)
SCALES: tl.constexpr = tl.constexpr(12)
REACH: tl.constexpr = tl.constexpr(13)
RING: tl.constexpr = tl.constexpr(14)
OFFSET: tl.constexpr = tl.constexpr(15)
WORDS: tl.constexpr = tl.constexpr(16)

LEVELS: tl.constexpr = tl.constexpr(NF4_LEVELS)


@triton.jit
def product(a, b, WIDE: tl.constexpr):
    """a @ b, summed in float32. WIDE: the CPU interpreter, whose product knows no bfloat16."""
    if WIDE:
        out = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    elif a.dtype == tl.float32:
        out = tl.dot(a, b, input_precision="tf32x3")
    else:
        out = tl.dot(a, b)
    return out


@triton.jit
def operand(x, T: tl.constexpr):
    """x in the type that the tensor's codes are multiplied in."""
    if T[KIND] == "fp32":
        out = x.to(tl.float32)
    elif T[KIND] == "bf16":
        out = x.to(tl.bfloat16)
    else:
        out = x.to(tl.float16)
    return out


@triton.jit
def first_block(group, T: tl.constexpr, GROUP: tl.constexpr):
    """The block of a row that the group's first head begins in."""
    if T[STEP] > 0:  # groups begin at blocks; said this way the compiler sees the alignment
        return group * T[STEP]
    return group * (GROUP * T[HEAD_DIM]) // T[BLOCK]


@triton.jit
def positions(block0, HIGH: tl.constexpr, T: tl.constexpr):
    """(E,) the place in the unpacked row of each stored element; HIGH: of its high nibble."""
    j = tl.arange(0, T[ELEMENTS])
    if T[CODE] == T[BLOCK]:
        return block0 * T[BLOCK] + j
    return (block0 + j // T[CODE]) * T[BLOCK] + j % T[CODE] + (T[CODE] if HIGH else 0)


@triton.jit
def diagonal(
    q,
    batch,
    head,
    block0,
    nth,
    HIGH: tl.constexpr,
    T: tl.constexpr,
    H: tl.constexpr,
    REP: tl.constexpr,
    KT: tl.constexpr,
):
    """(E, C) each column's query at the places of its key head (of that head's nth block), 0 elsewhere."""
    place = positions(block0, HIGH, T)
    kv_head = head // REP
    mine = ((place // T[HEAD_DIM])[:, None] == kv_head[None, :]) & (head >= 0)[None, :]
    mine = mine & ((tl.arange(0, T[ELEMENTS]) < T[GROUP_ELEMENTS]) & (place < T[WIDTH]))[:, None]
    if T[REACH] > 1:
        block = kv_head * T[HEAD_DIM] // T[BLOCK] + nth
        mine = mine & ((place // T[BLOCK])[:, None] == block[None, :])
    address = (batch * H + head)[None, :] * KT + T[OFFSET] + (place % T[HEAD_DIM])[:, None]
    return operand(tl.load(q + address, mask=mine, other=0.0), T)


@triton.jit
def key_scale_map(head, block0, nth, T: tl.constexpr, REP: tl.constexpr):
    """(M, C) 1 where a block of the row is the nth block of the column's key head."""
    block = (head // REP) * T[HEAD_DIM] // T[BLOCK] + nth
    return ((block0 + tl.arange(0, T[SCALE_COLUMNS]))[:, None] == block[None, :]).to(tl.float16)


@triton.jit
def page_rows(pages, batch, start, ELEMENT: tl.constexpr, LENGTH: tl.constexpr, PAGE: tl.constexpr):
    """Pointer to the row of position `start` in its page, whose rows are LENGTH elements."""
    page = tl.load(pages + start // PAGE).to(tl.pointer_type(ELEMENT))
    page = tl.multiple_of(page, 16)
    return page + (batch.to(tl.int64) * PAGE + start % PAGE) * LENGTH


@triton.jit
def stored(codes, batch, start, visible, block0, T: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr):
    """(N, E) the group's stored elements of N rows from position `start` on; hidden rows are 0."""
    if T[KIND] == "fp32":
        row = page_rows(codes, batch, start, tl.float32, T[ROW], PAGE)
    elif T[KIND] == "fp16":
        row = page_rows(codes, batch, start, tl.float16, T[ROW], PAGE)
    elif T[KIND] == "bf16":
        row = page_rows(codes, batch, start, tl.bfloat16, T[ROW], PAGE)
    else:
        row = page_rows(codes, batch, start, tl.uint8, T[ROW], PAGE)
    j = tl.arange(0, T[ELEMENTS])
    inside = j < T[GROUP_ELEMENTS]
    if T[STEP] == 0:
        inside = inside & (block0 * T[CODE] + j < T[ROW])
    address = block0 * T[CODE] + tl.arange(0, N)[:, None] * T[ROW] + j[None, :]
    return tl.load(row + address, mask=visible[:, None] & inside[None, :], other=0)


@triton.jit
def scale_rows(scales, batch, start, visible, block0, T: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr):
    """(N, M) the group's scales of N rows from position `start` on; hidden rows are 0."""
    row = page_rows(scales, batch, start, tl.float16, T[BLOCKS], PAGE)
    j = tl.arange(0, T[SCALE_COLUMNS])
    inside = j < T[GROUP_BLOCKS]
    if T[STEP] == 0:
        inside = inside & (block0 + j < T[BLOCKS])
    address = block0 + tl.arange(0, N)[:, None] * T[BLOCKS] + j[None, :]
    return tl.load(row + address, mask=visible[:, None] & inside[None, :], other=0.0)


@triton.jit
def ring_rows(ring, batch, place, start, visible, T: tl.constexpr, N: tl.constexpr):
    """(N, E) the fp16 values at `place` of N rows from position `start` on, from the window's slots."""
    slot = (start + tl.arange(0, N)) % T[RING]
    row = (batch.to(tl.int64) * T[RING] + slot) * T[WIDTH]
    inside = (place < T[WIDTH]) & (tl.arange(0, T[ELEMENTS]) < T[GROUP_ELEMENTS])
    return tl.load(ring + row[:, None] + place[None, :], mask=visible[:, None] & inside[None, :], other=0.0)


@triton.jit
def nf4_level(code):
    """fp16 levels of codes 0 to 15, chosen by halving: a table in memory would make every code an address."""
    bit0 = (code & 1) != 0
    bit1 = (code & 2) != 0
    bit2 = (code & 4) != 0
    quarter0 = tl.where(bit1, tl.where(bit0, LEVELS[3], LEVELS[2]), tl.where(bit0, LEVELS[1], LEVELS[0]))
    quarter1 = tl.where(bit1, tl.where(bit0, LEVELS[7], LEVELS[6]), tl.where(bit0, LEVELS[5], LEVELS[4]))
    quarter2 = tl.where(bit1, tl.where(bit0, LEVELS[11], LEVELS[10]), tl.where(bit0, LEVELS[9], LEVELS[8]))
    quarter3 = tl.where(bit1, tl.where(bit0, LEVELS[15], LEVELS[14]), tl.where(bit0, LEVELS[13], LEVELS[12]))
    level = tl.where((code & 8) != 0, tl.where(bit2, quarter3, quarter2), tl.where(bit2, quarter1, quarter0))
    return level.to(tl.float16)


@triton.jit
def decoded(codes, HIGH: tl.constexpr, T: tl.constexpr):
    """Codes as numbers, scale left out; HIGH: the high nibbles. Integers go by way of fp16's bits: 0x6400 is 1024."""
    if T[KIND] == "q8_0":
        out = ((codes ^ 0x80).to(tl.uint16) | 0x6400).to(tl.float16, bitcast=True) - 1152.0
    elif T[KIND] == "q4_0":
        nibble = (codes >> 4) if HIGH else (codes & 0xF)
        out = (nibble.to(tl.uint16) | 0x6400).to(tl.float16, bitcast=True) - 1032.0
    elif T[KIND] == "nf4":
        out = nf4_level((codes >> 4) if HIGH else (codes & 0xF))
    elif T[KIND] == "fp8":  # e4m3 in fp16's places has an exponent that is 8 too small
        bits = codes.to(tl.uint16)
        out = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True) * 256.0
    else:
        out = codes
    return out


@triton.jit
def spread_scales(scales, T: tl.constexpr, WIDE: tl.constexpr):
    """(N, M) -> (N, E) fp16: each stored element's scale."""
    of_block = tl.arange(0, T[SCALE_COLUMNS])[:, None] == (tl.arange(0, T[ELEMENTS]) // T[CODE])[None, :]
    return product(scales, of_block.to(tl.float16), WIDE).to(tl.float16)


@triton.jit
def part_scores(
    codes, scales, ring, batch, start, visible, block0,
    low0, high0, low1, high1, map0, map1,
    RINGED: tl.constexpr, T: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """(N, C) unscaled scores of one key part for N rows."""
    NIBBLES: tl.constexpr = T[CODE] != T[BLOCK]
    if RINGED and T[RING] > 0:
        low = ring_rows(ring, batch, positions(block0, False, T), start, visible, T, N)
        out = product(low, low0, WIDE)
        if T[REACH] > 1:
            out += product(low, low1, WIDE)
        if NIBBLES:
            high = ring_rows(ring, batch, positions(block0, True, T), start, visible, T, N)
            out += product(high, high0, WIDE)
            if T[REACH] > 1:
                out += product(high, high1, WIDE)
    else:
        raw = stored(codes, batch, start, visible, block0, T, N, PAGE)
        low = decoded(raw, False, T)
        if T[SCALES] == "codes":
            factor = spread_scales(scale_rows(scales, batch, start, visible, block0, T, N, PAGE), T, WIDE)
            low = low * factor
        out = product(low, low0, WIDE)
        if NIBBLES:
            high = decoded(raw, True, T)
            if T[SCALES] == "codes":
                high = high * factor
            out += product(high, high0, WIDE)
        if T[SCALES] == "columns":
            scale = scale_rows(scales, batch, start, visible, block0, T, N, PAGE)
            out = out * product(scale, map0, WIDE)
            if T[REACH] > 1:
                rest = product(low, low1, WIDE)
                if NIBBLES:
                    rest += product(high, high1, WIDE)
                out += rest * product(scale, map1, WIDE)
    return out


@triton.jit
def absorb(
    scores, codes, scales, ring, batch, start, visible, block0, value_map, m, mass, low_sum, high_sum,
    RINGED: tl.constexpr, T: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One tile into the running softmax.

    m (C,) is the maximum so far, mass (N, C) the sums of weights by place in the tile, and low_sum, high_sum (E, C) the
    weighted values, all relative to 2^m.
    """
    NIBBLES: tl.constexpr = T[CODE] != T[BLOCK]
    FROM_RING: tl.constexpr = RINGED and T[RING] > 0
    BY_COLUMN: tl.constexpr = (not FROM_RING) and T[SCALES] == "columns"
    if BY_COLUMN:
        scale = product(scale_rows(scales, batch, start, visible, block0, T, N, PAGE), value_map, WIDE)  # (N, C)
        bits = scale.to(tl.int32, bitcast=True) & 0x7F800000
        bits = tl.maximum(bits, 103 << 23)  # 2^-24 is fp16's smallest number; below there is only 0
        scores += ((bits >> 23) - 127).to(tl.float32)
        inverse = ((254 << 23) - bits).to(tl.float32, bitcast=True)  # 2^-exponent
    scores = tl.where(visible[:, None], scores, float("-inf"))
    m_new = tl.maximum(m, tl.max(scores, 0))
    m_safe = tl.where(m_new == float("-inf"), 0.0, m_new)
    keep = tl.exp2(m - m_safe)
    weight = tl.exp2(scores - m_safe[None, :])
    if BY_COLUMN:
        mass = mass * keep[None, :] + weight * inverse
        weight = weight * (scale * inverse)
    else:
        mass = mass * keep[None, :] + weight
    weight = operand(weight, T)

    if FROM_RING:
        low = ring_rows(ring, batch, positions(block0, False, T), start, visible, T, N)
    else:
        raw = stored(codes, batch, start, visible, block0, T, N, PAGE)
        low = decoded(raw, False, T)
        if T[SCALES] == "codes":
            factor = spread_scales(scale_rows(scales, batch, start, visible, block0, T, N, PAGE), T, WIDE)
            low = low * factor
    low_sum = low_sum * keep[None, :] + product(tl.trans(low), weight, WIDE)
    if NIBBLES:
        if FROM_RING:
            high = ring_rows(ring, batch, positions(block0, True, T), start, visible, T, N)
        else:
            high = decoded(raw, True, T)
            if T[SCALES] == "codes":
                high = high * factor
        high_sum = high_sum * keep[None, :] + product(tl.trans(high), weight, WIDE)
    return m_new, mass, low_sum, high_sum


@triton.jit
def null_logit(
    q, null_k, batch, head, T: tl.constexpr, D: tl.constexpr, H: tl.constexpr, REP: tl.constexpr, KT: tl.constexpr
):
    """(C,) one key part's unscaled score on the null key."""
    d = tl.arange(0, D)
    mask = (head >= 0)[:, None] & (d < T[HEAD_DIM])[None, :]
    query = tl.load(q + (batch * H + head)[:, None] * KT + T[OFFSET] + d[None, :], mask=mask, other=0.0)
    key = tl.load(null_k + (head // REP)[:, None] * KT + T[OFFSET] + d[None, :], mask=mask, other=0.0)
    return tl.sum(query.to(tl.float32) * key.to(tl.float32), 1)


@triton.jit
def outputs(head, column_block, block0, HIGH: tl.constexpr, T: tl.constexpr, REP: tl.constexpr):
    """(E, C) which sums belong to the column's own head (and block), and their places in the head: mask, (E,)."""
    place = positions(block0, HIGH, T)
    mine = ((place // T[HEAD_DIM])[:, None] == (head // REP)[None, :]) & (head >= 0)[None, :]
    mine = mine & ((tl.arange(0, T[ELEMENTS]) < T[GROUP_ELEMENTS]) & (place < T[WIDTH]))[:, None]
    if T[SCALES] == "columns":
        mine = mine & ((place // T[BLOCK])[:, None] == column_block[None, :])
    return mine, place % T[HEAD_DIM]


@triton.jit(do_not_specialize=["tokens", "ring_from", "tiles_a_split", "splits", "lines", "line0"])
def spans(
    q, null_k, null_v, first, columns, out, lse,
    k0_codes, k0_scales, k0_ring, k1_codes, k1_scales, k1_ring, v_codes, v_scales, v_ring,
    scale, tokens, ring_from, tiles_a_split, splits, lines, line0,
    K0: tl.constexpr, K1: tl.constexpr, V: tl.constexpr, PARTS: tl.constexpr,
    H: tl.constexpr, REP: tl.constexpr, KT: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr,
    NULL_DIM: tl.constexpr, PAGE: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
    HAS_NULL: tl.constexpr, HAS_FIRST: tl.constexpr, HAS_RING: tl.constexpr, FINAL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Attention of one span of tokens, normalised: out (B, H, lines, V), lse (B, H, lines) in powers of two.

    A span writes line line0 + its number. FINAL: there is one span, and no lse is wanted. The last span takes the
    window, the first one the null key.
    """
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

    begin = 0
    if HAS_FIRST:
        begin = tl.load(first + batch)
    end = tokens
    if HAS_RING:
        end = ring_from
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
def merge(parts, lse, out, splits, D: tl.constexpr, D_PAD: tl.constexpr, S: tl.constexpr):
    """parts (B * H, splits, D) fp32 and lse (B * H, splits) of the spans -> out (B * H, D)."""
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

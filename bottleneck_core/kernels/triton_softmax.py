"""The scores of one tile, and the tile's part in the running softmax.

Scales stay away from the codes where they can: a key's scale multiplies the score, a value's scale the weight. So the
score matrix has a column for each pair of a query head and a block of values that the head reaches into; the columns of
one head have equal scores. A row's scales get to their columns by a product with a 0/1 matrix, which is exact. Where a
head spans many blocks the codes are multiplied instead (`SCALES` is "codes").

A weight times a scale can leave fp16's range. The scale's power of two therefore joins the exponent, under the same
running maximum, and only its mantissa multiplies.

Legend: N tokens of a tile, C columns, E stored elements of a row (the group's). `T` is a `plan.Tile`.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from bottleneck_core.kernels.triton_bytes import decoded, positions, ring_rows, scale_rows, spread_scales, stored
from bottleneck_core.kernels.triton_tile import BLOCK, CODE, REACH, RING, SCALES, operand, product


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

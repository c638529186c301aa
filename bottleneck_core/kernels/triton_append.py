"""The Triton kernels of a new token: its keys and values are packed into their pages, its heads are rotated.

Packing follows `kvcache.formats` operation by operation in float32, nothing fused into multiply-adds, so that the
stored bytes are those of the reference.

Legend: M blocks of a row, J stored elements of a block, H heads, D/2 pairs of columns. `T` is a `plan.Tile`.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportCallIssue=false

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from bottleneck_core.kernels.packed import NF4_LEVELS
from bottleneck_core.kernels.triton_tile import (
    BLOCK,
    BLOCKS,
    CODE,
    HEAD_DIM,
    KIND,
    OFFSET,
    RING,
    ROW,
    WIDTH,
    page_rows,
)

_LEVELS = np.array(NF4_LEVELS, dtype=np.float32)
# Where the nearest level changes, rounded as the reference rounds them.
NF4_BETWEEN: tl.constexpr = tl.constexpr(tuple(float(x) for x in (_LEVELS[1:] + _LEVELS[:-1]) / np.float32(2)))


@triton.constexpr_function
def power(n):
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


@triton.jit
def new_values(x, batch, place, inside, x_batch, x_head, x_column, T: tl.constexpr):
    """(M, J) float32: the new row's values at these places of the unpacked row, 0 outside."""
    row = x + batch.to(tl.int64) * x_batch + T[OFFSET] * x_column
    address = (place // T[HEAD_DIM]) * x_head + (place % T[HEAD_DIM]) * x_column
    return tl.load(row + address, mask=inside & (place < T[WIDTH]), other=0.0).to(tl.float32)


@triton.jit
def inverse_of(scale):
    """1 / scale; 0 where that is beyond float32, as for a block of zeros."""
    usable = tl.abs(scale) > 2.938735877055719e-39  # 2^-128
    return tl.where(usable, tl.div_rn(tl.full(scale.shape, 1.0, tl.float32), tl.where(usable, scale, 1.0)), 0.0)


@triton.jit
def largest_signed(low, high, NIBBLES: tl.constexpr):
    """(M, 1) the value of largest magnitude of each block, the first one where several have it."""
    j = tl.arange(0, low.shape[1])[None, :]
    size = tl.abs(low)
    first = tl.argmax(size, 1, tie_break_left=True)[:, None]
    out = tl.sum(tl.where(j == first, low, 0.0), 1)[:, None]
    if NIBBLES:
        size = tl.abs(high)
        first = tl.argmax(size, 1, tie_break_left=True)[:, None]
        other = tl.sum(tl.where(j == first, high, 0.0), 1)[:, None]
        out = tl.where(tl.abs(other) > tl.abs(out), other, out)
    return out


@triton.jit
def nf4_code(scaled):
    """The number of the nearest level; halfway between two it is the lower one."""
    code = (scaled > NF4_BETWEEN[0]).to(tl.int32)
    for i in tl.static_range(1, 15):
        code += (scaled > NF4_BETWEEN[i]).to(tl.int32)
    return code


@triton.jit
def fp8_code(x):
    """e4m3 bits of float32, rounded to nearest even and clamped to 448; by arithmetic that every chip has."""
    bits = tl.minimum(tl.maximum(x, -448.0), 448.0).to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    # Below 2^-6 the step is 2^-9, which is the last bit of a number between 2^14 and 2^15.
    small = (size.to(tl.float32, bitcast=True) + 16384.0).to(tl.int32, bitcast=True) - 0x46800000
    normal = (size - (120 << 23) + 0x7FFFF + ((size >> 20) & 1)) >> 20
    return tl.where(size < (121 << 23), small, normal) | ((bits >> 24) & 0x80)


@triton.jit
def bf16_bits(x):
    """The upper half of float32, rounded to nearest even."""
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.uint16)


@triton.jit
def append_row(
    x, codes, scales, ring, broken, batch, position, x_batch, x_head, x_column,
    T: tl.constexpr, LIMIT: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Pack one tensor's new row of one request into its page, and into the window's slot where there is one."""
    NIBBLES: tl.constexpr = T[CODE] != T[BLOCK]
    M: tl.constexpr = power(T[BLOCKS])
    J: tl.constexpr = power(T[CODE])
    block = tl.arange(0, M)[:, None]
    j = tl.arange(0, J)[None, :]
    here = (block < T[BLOCKS]) & (j < T[CODE])
    place = block * T[BLOCK] + j  # (M, J) of the only, or of the low nibble
    low = new_values(x, batch, place, here, x_batch, x_head, x_column, T)
    high = low
    if NIBBLES:
        high = new_values(x, batch, place + T[CODE], here, x_batch, x_head, x_column, T)

    if LIMIT > 0:
        outside = (tl.abs(low) <= LIMIT).to(tl.int32) & (tl.abs(high) <= LIMIT).to(tl.int32)  # 0 also where undefined
        bad = tl.min(tl.min(outside, 1), 0) == 0
        tl.store(broken, 1, mask=bad)

    if T[RING] > 0:
        row = ring + (batch.to(tl.int64) * T[RING] + position % T[RING]) * T[WIDTH]
        tl.store(row + place, low.to(tl.float16), mask=here & (place < T[WIDTH]))
        if NIBBLES:
            tl.store(row + place + T[CODE], high.to(tl.float16), mask=here & (place + T[CODE] < T[WIDTH]))

    page = tl.load(codes + position // PAGE)
    at = block * T[CODE] + j
    if T[KIND] == "fp32":
        tl.store(page_rows(page, batch, position, tl.float32, T[ROW], PAGE) + at, low, mask=here)
    elif T[KIND] == "fp16":
        tl.store(page_rows(page, batch, position, tl.float16, T[ROW], PAGE) + at, low.to(tl.float16), mask=here)
    elif T[KIND] == "bf16":
        tl.store(page_rows(page, batch, position, tl.uint16, T[ROW], PAGE) + at, bf16_bits(low), mask=here)
    elif T[KIND] == "fp8":
        tl.store(page_rows(page, batch, position, tl.uint8, T[ROW], PAGE) + at, fp8_code(low).to(tl.uint8), mask=here)
    else:
        if T[KIND] == "q8_0":
            scale = tl.max(tl.abs(low), 1)[:, None]
            scale = tl.div_rn(scale, tl.full(scale.shape, 127.0, tl.float32))
            scaled = low * inverse_of(scale)
            rounded = tl.floor(tl.abs(scaled) + 0.5).to(tl.int32)  # half away from zero
            code = tl.where(scaled < 0, -rounded, rounded) & 0xFF
        elif T[KIND] == "q4_0":
            scale = largest_signed(low, high, NIBBLES) * -0.125
            factor = inverse_of(scale)
            code = tl.minimum(tl.maximum((low * factor + 8.5).to(tl.int32), 0), 15)
            code |= tl.minimum(tl.maximum((high * factor + 8.5).to(tl.int32), 0), 15) << 4
        else:
            scale = tl.maximum(tl.max(tl.abs(low), 1), tl.max(tl.abs(high), 1))[:, None]
            factor = inverse_of(scale)
            code = nf4_code(low * factor) | (nf4_code(high * factor) << 4)
        tl.store(page_rows(page, batch, position, tl.uint8, T[ROW], PAGE) + at, code.to(tl.uint8), mask=here)
        row = page_rows(tl.load(scales + position // PAGE), batch, position, tl.float16, T[BLOCKS], PAGE)
        tl.store(row + block, scale.to(tl.float16), mask=block < T[BLOCKS])


@triton.jit
def append(
    k, v, counts, broken,
    k0_codes, k0_scales, k0_ring, k1_codes, k1_scales, k1_ring, v_codes, v_scales, v_ring,
    k_batch, k_head, k_column, v_batch, v_head, v_column,
    K0: tl.constexpr, K1: tl.constexpr, V: tl.constexpr, PARTS: tl.constexpr, LIMITS: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Store position counts[0] - 1: a program takes one request (axis 0) and one tensor of its layer (axis 1)."""
    batch = tl.program_id(0)
    tensor = tl.program_id(1)
    position = tl.load(counts) - 1
    if tensor == 0:
        append_row(
            k, k0_codes, k0_scales, k0_ring, broken, batch, position, k_batch, k_head, k_column, K0, LIMITS[0], PAGE
        )
    elif tensor == PARTS:
        append_row(v, v_codes, v_scales, v_ring, broken, batch, position, v_batch, v_head, v_column, V, LIMITS[2], PAGE)
    else:
        append_row(
            k, k1_codes, k1_scales, k1_ring, broken, batch, position, k_batch, k_head, k_column, K1, LIMITS[1], PAGE
        )


@triton.jit
def turn(
    x, cosines, sines, out, x_batch, x_head, x_column, turn_batch,
    H: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Rotate the heads of one request: column i with column i + D/2, in float32; out is (B, H, D)."""
    HEADS: tl.constexpr = power(H)
    PAIRS: tl.constexpr = power(HALF)
    batch = tl.program_id(0)
    head = tl.arange(0, HEADS)[:, None]
    pair = tl.arange(0, PAIRS)[None, :]
    here = (head < H) & (pair < HALF)
    row = x + batch.to(tl.int64) * x_batch + head * x_head
    left = tl.load(row + pair * x_column, mask=here, other=0.0).to(tl.float32)
    right = tl.load(row + (pair + HALF) * x_column, mask=here, other=0.0).to(tl.float32)
    cosine = tl.load(cosines + batch * turn_batch + pair, mask=pair < HALF, other=0.0)
    sine = tl.load(sines + batch * turn_batch + pair, mask=pair < HALF, other=0.0)
    target = out + (batch * H + head) * (2 * HALF) + pair
    tl.store(target, left * cosine - right * sine, mask=here)
    tl.store(target + HALF, right * cosine + left * sine, mask=here)

"""Packed rows whose stored elements, bytes or plain values, are a matrix's elements: their places, loads, unpacking.

A byte of two nibbles is two elements, the low one and the high one, each with a matrix of its own.

Legend: N tokens of a tile, C columns, E stored elements of a row (the group's), M blocks of a row (the group's).
`T` is a `plan.Tile`.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from bottleneck_core.kernels.triton_tile import (
    BLOCK,
    BLOCKS,
    CODE,
    ELEMENTS,
    GROUP_BLOCKS,
    GROUP_ELEMENTS,
    HEAD_DIM,
    KIND,
    OFFSET,
    REACH,
    RING,
    ROW,
    SCALE_COLUMNS,
    SCALES,
    STEP,
    WIDTH,
    nf4_level,
    operand,
    page_rows,
    product,
)


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
def outputs(head, column_block, block0, HIGH: tl.constexpr, T: tl.constexpr, REP: tl.constexpr):
    """(E, C) which sums belong to the column's own head (and block), and their places in the head: mask, (E,)."""
    place = positions(block0, HIGH, T)
    mine = ((place // T[HEAD_DIM])[:, None] == (head // REP)[None, :]) & (head >= 0)[None, :]
    mine = mine & ((tl.arange(0, T[ELEMENTS]) < T[GROUP_ELEMENTS]) & (place < T[WIDTH]))[:, None]
    if T[SCALES] == "columns":
        mine = mine & ((place // T[BLOCK])[:, None] == column_block[None, :])
    return mine, place % T[HEAD_DIM]


@triton.jit
def stored(codes, batch, start, visible, block0, T: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr):
    """(N, E) the group's stored elements of N rows from position `start` on; hidden rows are 0."""
    page = tl.load(codes + start // PAGE)
    if T[KIND] == "fp32":
        row = page_rows(page, batch, start, tl.float32, T[ROW], PAGE)
    elif T[KIND] == "fp16":
        row = page_rows(page, batch, start, tl.float16, T[ROW], PAGE)
    elif T[KIND] == "bf16":
        row = page_rows(page, batch, start, tl.bfloat16, T[ROW], PAGE)
    else:
        row = page_rows(page, batch, start, tl.uint8, T[ROW], PAGE)
    j = tl.arange(0, T[ELEMENTS])
    inside = j < T[GROUP_ELEMENTS]
    if T[STEP] == 0:
        inside = inside & (block0 * T[CODE] + j < T[ROW])
    address = block0 * T[CODE] + tl.arange(0, N)[:, None] * T[ROW] + j[None, :]
    return tl.load(row + address, mask=visible[:, None] & inside[None, :], other=0)


@triton.jit
def scale_rows(scales, batch, start, visible, block0, T: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr):
    """(N, M) the group's scales of N rows from position `start` on; hidden rows are 0."""
    row = page_rows(tl.load(scales + start // PAGE), batch, start, tl.float16, T[BLOCKS], PAGE)
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

"""Packed rows read as 16-bit words: where the words' values stand, the queries and null values there, the loads.

Since the order of a contracted axis is free, the queries are permuted instead of the codes: each plane of the words
(see `triton_planes`) is multiplied with the queries of its own values.

Legend: N tokens of a tile, C columns (one a query head), E words of a row (the group's). `T` is a `plan.Tile`.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from bottleneck_core.kernels.triton_planes import folds
from bottleneck_core.kernels.triton_tile import (
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
    WIDTH,
    WORDS,
    page_rows,
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
def null_values(null_v, head, block0, PLANE: tl.constexpr, T: tl.constexpr, REP: tl.constexpr):
    """(E, C) the null value at the places of each column's own head in plane PLANE."""
    mine, d = word_mine(head, block0, PLANE, T, REP)
    return tl.load(null_v + (head // REP)[None, :] * T[HEAD_DIM] + d[:, None], mask=mine, other=0.0).to(tl.float32)


@triton.jit
def word_outputs(out, total, head, block0, line, PLANE: tl.constexpr, T: tl.constexpr, REP: tl.constexpr):
    """Store plane PLANE's sums (E, C) at the places of each column's own head."""
    mine, d = word_mine(head, block0, PLANE, T, REP)
    tl.store(out + line[None, :] * T[HEAD_DIM] + d[:, None], total, mask=mine)


@triton.jit
def word_rows(
    page, batch, start, visible, block0, T: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr, TURNED: tl.constexpr
):
    """(N, E) the group's words of N rows from position `start` on, in the codes' page; TURNED: (E, N)."""
    PER_WORD: tl.constexpr = 1 if T[KIND] == "fp16" else 2
    if T[KIND] == "fp16":
        row = page_rows(page, batch, start, tl.float16, T[ROW], PAGE)
    else:
        row = page_rows(page, batch, start, tl.uint16, T[ROW] // PER_WORD, PAGE)
    row += block0 * (T[CODE] // PER_WORD)
    j = tl.arange(0, T[WORDS])
    n = tl.arange(0, N)
    inside = j < T[GROUP_ELEMENTS] // PER_WORD
    # Codes of hidden rows are finite whatever they are, and their scales are read as 0; fp16 may hold anything there.
    EITHER: tl.constexpr = T[SCALES] != "none"
    if TURNED:
        address = n[None, :] * (T[ROW] // PER_WORD) + j[:, None]
        mask = (visible | EITHER)[None, :] & inside[:, None]
    else:
        address = n[:, None] * (T[ROW] // PER_WORD) + j[None, :]
        mask = (visible | EITHER)[:, None] & inside[None, :]
    return tl.load(row + address, mask=mask, other=0)


@triton.jit
def block_scales(page, batch, start, begin, tokens, block0, T: tl.constexpr, N: tl.constexpr, PAGE: tl.constexpr):
    """A tuple of (N,): the scales of each of the group's blocks, in the scales' page."""
    row = page_rows(page, batch, start, tl.float16, T[BLOCKS], PAGE) + block0
    n = tl.arange(0, N)
    visible = (start + n >= begin) & (start + n < tokens)
    out = (tl.load(row + n * T[BLOCKS], mask=visible, other=0.0),)
    COUNT: tl.constexpr = 1 if T[SCALES] == "none" else T[GROUP_BLOCKS]
    for b in tl.static_range(1, COUNT):
        out = out + (tl.load(row + b + n * T[BLOCKS], mask=visible, other=0.0),)  # noqa: RUF005 - Triton cannot unpack
    return out


@triton.jit
def spread(scales, T: tl.constexpr, TURNED: tl.constexpr):
    """(N, E) fp16: each word's scale; TURNED: (E, N). The choice by word is known when the program is compiled."""
    AXIS: tl.constexpr = 0 if TURNED else 1
    block = tl.expand_dims(tl.arange(0, T[WORDS]) // (T[CODE] // 2), 1 - AXIS)
    out = tl.expand_dims(scales[0], AXIS)
    COUNT: tl.constexpr = T[GROUP_BLOCKS]
    for b in tl.static_range(1, COUNT):
        out = tl.where(block >= b, tl.expand_dims(scales[b], AXIS), out)
    return out

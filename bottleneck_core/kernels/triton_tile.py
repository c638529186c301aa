"""What the decode kernels know of a cached tensor at compile time, and the steps that both of them take with it.

A constexpr `T` is a `plan.Tile`, what is fixed about one cached tensor; its fields are read by index, since a tuple is
what Triton takes.

Legend: C columns of the score matrix.
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
def product(a, b, WIDE: tl.constexpr, start=None):
    """start + a @ b, summed in float32. WIDE: the CPU interpreter, whose product knows no bfloat16."""
    if WIDE:
        out = tl.dot(a.to(tl.float32), b.to(tl.float32), acc=start, input_precision="ieee")
    elif a.dtype == tl.float32:
        out = tl.dot(a, b, acc=start, input_precision="tf32x3")
    else:
        out = tl.dot(a, b, acc=start)
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
def page_rows(page, batch, start, ELEMENT: tl.constexpr, LENGTH: tl.constexpr, PAGE: tl.constexpr):
    """Pointer to the row of position `start` in the page at address `page`, whose rows are LENGTH elements."""
    page = tl.multiple_of(page.to(tl.pointer_type(ELEMENT)), 16)
    return page + (batch.to(tl.int64) * PAGE + start % PAGE) * LENGTH


@triton.jit
def tiles_a_span(end, least, splits, N: tl.constexpr):
    """Tiles that each of at most `splits` spans of `end` tokens takes, as `decode` cuts them; 0 for a least of 0."""
    tiles = (end + N - 1) // N
    shortest = tl.maximum(least, 1)
    used = tl.maximum(tl.minimum(splits, (tiles + shortest - 1) // shortest), 1)
    return tl.where(least > 0, (tiles + used - 1) // used, 0)


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
def null_logit(
    q, null_k, batch, head, T: tl.constexpr, D: tl.constexpr, H: tl.constexpr, REP: tl.constexpr, KT: tl.constexpr
):
    """(C,) one key part's unscaled score on the null key."""
    d = tl.arange(0, D)
    mask = (head >= 0)[:, None] & (d < T[HEAD_DIM])[None, :]
    query = tl.load(q + (batch * H + head)[:, None] * KT + T[OFFSET] + d[None, :], mask=mask, other=0.0)
    key = tl.load(null_k + (head // REP)[:, None] * KT + T[OFFSET] + d[None, :], mask=mask, other=0.0)
    return tl.sum(query.to(tl.float32) * key.to(tl.float32), 1)

"""Cross-entropy of rows of logits, which their gradient replaces.

A row of a GPT-2 vocabulary is 100 KB. It is read twice, for the sum of exponentials and for the gradient; few programs
run at a time, so that the second reading finds it in the L2 cache.

Legend: R parts of a tile, C columns of a part. With C = 256 x warps a thread holds eight neighbouring columns of all
parts, so that their maximum needs no other thread and the running sum is rescaled once a tile.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def cross_entropy_rows(
    logits, targets, losses, rows, vocab, stride, ignored,
    GRADIENT: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """losses (rows,) of logits (rows, stride), whose first `vocab` columns count; then softmax minus one-hot there.

    The columns behind the vocabulary get 0, and so does a row whose target is `ignored`. `stride` is a multiple of 16.
    """
    parts = tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :]  # (R, C)
    whole = vocab // (R * C) * (R * C)  # columns in tiles that need no mask
    first = tl.program_id(0).to(tl.int64)  # so that rows are, whose offsets leave 32 bits
    for turn in range(0, tl.cdiv(rows - first, tl.num_programs(0))):
        row = first + turn * tl.num_programs(0)
        base = logits + row * stride
        target = tl.load(targets + row)
        counts = target != ignored
        peak = tl.full((C,), float("-inf"), tl.float32)
        total = tl.zeros((C,), tl.float32)
        for start in range(0, whole, R * C):
            x = tl.load(base + start + parts, eviction_policy="evict_last").to(tl.float32) * LOG2_E
            now = tl.maximum(peak, tl.max(x, 0))
            total = total * tl.exp2(peak - now) + tl.sum(tl.exp2(x - now[None, :]), 0)
            peak = now
        for start in range(whole, vocab, R * C):
            at = start + parts
            # Masked by the stride: by the vocabulary, an odd number, columns would be loaded one by one.
            x = tl.load(base + at, mask=at < stride, other=0.0, eviction_policy="evict_last").to(tl.float32) * LOG2_E
            x = tl.where(at < vocab, x, float("-inf"))
            now = tl.maximum(peak, tl.max(x, 0))
            shift = tl.where(now == float("-inf"), 0.0, now)  # a column that has seen nothing yet
            total = total * tl.exp2(peak - shift) + tl.sum(tl.exp2(x - shift[None, :]), 0)
            peak = now
        top = tl.max(peak, 0)
        log_sum = top + tl.log2(tl.sum(total * tl.exp2(peak - top), 0))
        own = tl.load(base + tl.where(counts, target, 0)).to(tl.float32) * LOG2_E
        tl.store(losses + row, tl.where(counts, (log_sum - own) * LN_2, 0.0))
        if GRADIENT:
            tl.debug_barrier()  # all threads have read the target's logit before one overwrites it
            keep = tl.where(counts, 1.0, 0.0)
            for start in range(0, whole, R * C):
                at = start + parts
                x = tl.load(base + at, eviction_policy="evict_first").to(tl.float32)
                gradient = (tl.exp2(x * LOG2_E - log_sum) - tl.where(at == target, 1.0, 0.0)) * keep
                tl.store(base + at, gradient.to(logits.dtype.element_ty))
            for start in range(whole, stride, R * C):
                at = start + parts
                x = tl.load(base + at, mask=at < stride, other=0.0, eviction_policy="evict_first").to(tl.float32)
                gradient = (tl.exp2(x * LOG2_E - log_sum) - tl.where(at == target, 1.0, 0.0)) * keep
                gradient = tl.where(at < vocab, gradient, 0.0)
                tl.store(base + at, gradient.to(logits.dtype.element_ty), mask=at < stride)

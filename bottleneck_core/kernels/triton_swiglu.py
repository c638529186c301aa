"""SwiGLU and its gradient, each in one pass over what it reads.

Legend: N tokens, F feed-forward width, W values of a program. A row of `joined` is F gates and then F ups.
"""

# Triton's language is not Python's to a type checker: constants become constexpr, tensors compare to tensors.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def swiglu_forward(joined, out, F, W: tl.constexpr):
    """out (N, F) = silu(gate) x up."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * W + tl.arange(0, W)
    inside = columns < F
    gate = tl.load(joined + row * 2 * F + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(joined + row * 2 * F + F + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * F + columns, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def swiglu_backward(joined, d_out, d_joined, F, W: tl.constexpr):
    """d_joined (N, 2 F) of d_out (N, F)."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * W + tl.arange(0, W)
    inside = columns < F
    gate = tl.load(joined + row * 2 * F + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(joined + row * 2 * F + F + columns, mask=inside, other=0.0).to(tl.float32)
    into = tl.load(d_out + row * F + columns, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    of_gate = into * up * share * (1 + gate * (1 - share))
    of_up = into * gate * share
    tl.store(d_joined + row * 2 * F + columns, of_gate.to(d_joined.dtype.element_ty), mask=inside)
    tl.store(d_joined + row * 2 * F + F + columns, of_up.to(d_joined.dtype.element_ty), mask=inside)

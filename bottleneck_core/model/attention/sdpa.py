"""The fast path: PyTorch's fused attention for every variant, null key included; narrow heads on CUDA by our kernel.

A null key makes one key more than there are queries, and SDPA's `is_causal` aligns the diagonal upper left, which
would hide each query's own key. A zero query in front squares the problem instead: it sees the null key alone,
and its output is dropped. `causal_lower_right` says the same, but its tensor subclass cannot be constructed
inside a compiled region (torch 2.13), and on the CPU it builds a T x (T + 1) mask.

Legend: B batch, H heads, G key and value heads, T queries, S keys, K head dim of queries and keys, V head dim
of values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from bottleneck_core import kernels

if TYPE_CHECKING:
    from bottleneck_core.model.attention.base import Projected

_KERNELS = kernels.available() is None


def attend(projected: Projected, dropout_p: float = 0.0) -> Tensor:
    """What `reference.attend` computes, (B, T, H * V), without a T x S matrix where a fused kernel can."""
    q, k, v = projected.q, projected.k, projected.v
    T, S, V = q.size(2), k.size(2), v.size(3)
    if T == S and not dropout_p and _is_narrow(q, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, T, H or G, K or V)
        return kernels.attention(q, k, v, projected.null_k, projected.null_v, projected.scale).flatten(2)
    if projected.null_k is not None and projected.null_v is not None:
        k = torch.cat((_row(projected.null_k, k), k), dim=2)  # (B, G, S + 1, K)
        v = torch.cat((_row(projected.null_v, v), v), dim=2)  # (B, G, S + 1, V)
        if T == S:
            q = F.pad(q, (0, 0, 1, 0))  # (B, H, T + 1, K)
    mask, is_causal = None, False
    if T == S:
        is_causal = True
    elif T > 1:  # several new queries over a cache; a single one sees every key
        mask = causal_lower_right(T, k.size(2))
    k, v = _heads_that_kernels_take(q, k, v)
    q, k, v = _head_dims_that_kernels_take(q, k, v)
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=dropout_p,
        is_causal=is_causal,
        scale=projected.scale,
        enable_gqa=k.size(1) != q.size(1),
    )  # (B, H, T or T + 1, max(K, V))
    return out[:, :, -T:, :V].transpose(1, 2).flatten(2)  # (B, T, H, V) -> (B, T, H * V)


def _is_narrow(q: Tensor, v: Tensor) -> bool:
    """Whether our own kernel is the fastest: heads narrower than PyTorch's kernels are made for, in half precision."""
    widest = max(q.size(3), v.size(3))
    return _KERNELS and q.is_cuda and q.dtype in kernels.HALF_PRECISION and widest <= kernels.WIDEST


def _row(null: Tensor, like: Tensor) -> Tensor:
    """(G, D) -> (B, G, 1, D): one more row in front of `like` (B, G, S, D)."""
    return null[:, None].expand(like.size(0), -1, 1, -1).to(like.dtype)


def _heads_that_kernels_take(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    # On CUDA the kernels that read one key head for several query heads are half precision only. In float32 the
    # choice is between H / G copies of the keys and a T x S matrix per head; the copies are smaller.
    if k.size(1) == q.size(1) or q.dtype in (torch.bfloat16, torch.float16):
        return k, v
    copies = q.size(1) // k.size(1)
    return k.repeat_interleave(copies, dim=1), v.repeat_interleave(copies, dim=1)


def _head_dims_that_kernels_take(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Flash attention, on CUDA and on the CPU, wants K = V; decoupled attention has both free. cuDNN's kernels, on an
    # H200 a quarter faster in training than flash at 16 values a head, want multiples of 8. Zero columns change neither
    # a score (the scale is given, not derived from the width) nor the columns of the output that are kept.
    width = max(q.size(3), v.size(3))
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        width += -width % 8
    if q.size(3) < width:
        q, k = F.pad(q, (0, width - q.size(3))), F.pad(k, (0, width - k.size(3)))
    if v.size(3) < width:
        v = F.pad(v, (0, width - v.size(3)))
    return q, k, v

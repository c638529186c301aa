"""Attention written out: the specification that every faster path is tested against.

Legend: B batch, H heads, G key and value heads, T queries, S keys, N = S, or S + 1 with the null key in
column 0, K head dim of queries and keys, V head dim of values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from bottleneck_core.model.attention.base import Projected


def visible(queries: int, keys: int, null: bool, device: torch.device) -> Tensor:
    """Mask (T, N), true where a query sees a key: keys up to its own position, and the null key always.

    The last query stands at the last key: with more keys than queries (a cache) the diagonal ends lower right.
    """
    query_position = torch.arange(keys - queries, keys, device=device)
    causal = torch.arange(keys, device=device) <= query_position[:, None]  # (T, S)
    return F.pad(causal, (1, 0), value=True) if null else causal


def scores(projected: Projected) -> Tensor:
    """Scaled logits (B, H, T, N) with -inf at what a query does not see."""
    q, k = projected.q, _per_query_head(projected.k, projected.q.size(1))
    null = projected.null_k is not None
    if projected.null_k is not None:
        k = torch.cat((_null_row(projected.null_k, k), k), dim=2)  # (B, H, N, K)
    logits = projected.scale * (q @ k.transpose(-2, -1))  # (B, H, T, N)
    mask = visible(q.size(2), projected.k.size(2), null, q.device)
    return logits.masked_fill(~mask, float("-inf"))


def weights(projected: Projected) -> Tensor:
    """Attention weights (B, H, T, N), rows summing to 1; the softmax runs in float32, or in float64."""
    logits = scores(projected)
    return logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).to(logits.dtype)


def attend(projected: Projected, dropout_p: float = 0.0) -> Tensor:
    """Attention output with the heads merged, (B, T, H * V); dropout falls on the weights."""
    v = _per_query_head(projected.v, projected.q.size(1))
    if projected.null_v is not None:
        v = torch.cat((_null_row(projected.null_v, v), v), dim=2)  # (B, H, N, V)
    dropped = F.dropout(weights(projected), dropout_p)
    return (dropped @ v).transpose(1, 2).flatten(2)  # (B, T, H, V) -> (B, T, H * V)


def _per_query_head(x: Tensor, heads: int) -> Tensor:
    """(B, G, S, D) -> (B, H, S, D): query head h reads key head h // (H / G)."""
    return x.repeat_interleave(heads // x.size(1), dim=1)


def _null_row(null: Tensor, like: Tensor) -> Tensor:
    """(G, D) -> (B, H, 1, D): one more row in front of `like` (B, H, S, D)."""
    per_head = null.repeat_interleave(like.size(1) // null.size(0), dim=0)
    return per_head[:, None].expand(like.size(0), -1, 1, -1).to(like.dtype)

"""Attention over cached keys and values, read block by block: never is the whole cache unpacked at once.

The softmax is the online one (Milakov and Gimelshein, arXiv:1805.02867): a running maximum m, sum l and weighted sum
of values, rescaled when the maximum rises.

A query at position p sees the newest R positions, p - R + 1 .. p, as the fp16 ring gives them, and older ones as they
are packed. That holds for every query of a chunk by its own position, so that a prompt gives the same numbers however
it is cut into chunks, and the same as token by token.

Legend: B batch, H heads, G key and value heads (G divides H), T queries, S keys of a block, K head dim of queries and
keys, V head dim of values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from bottleneck_core.kvcache.cache import KVCache

Rows = Mapping[str, Tensor]  # (B, S, W) by tensor name, values last


class OnlineSoftmax:
    """Weighted sums of values under a softmax whose keys arrive in pieces, for queries (B, H, T, K)."""

    def __init__(self, q: Tensor, kv_heads: int, value_dim: int, scale: float) -> None:
        batch, heads, queries, _ = q.shape
        # Query heads that share a key head stand side by side: one product for all of them.
        self.q = (q * scale).reshape(batch, kv_heads, heads // kv_heads * queries, -1)  # (B, G, H / G * T, K)
        self.queries = queries
        self.top = torch.full_like(self.q[..., :1], float("-inf"))
        self.total = torch.zeros_like(self.top)
        self.sum = self.q.new_zeros(*self.q.shape[:-1], value_dim)

    def add(self, k: Tensor, v: Tensor, hidden: Tensor | None = None) -> None:
        """Keys (B, G, S, K) and values (B, G, S, V); `hidden` (B or 1, T, S) is true where a query does not see one."""
        scores = self.q @ k.transpose(-2, -1)  # (B, G, H / G * T, S)
        if hidden is not None:
            copies = scores.size(2) // self.queries
            scores = scores.masked_fill(hidden.repeat(1, copies, 1)[:, None], float("-inf"))
        top = torch.maximum(self.top, scores.amax(-1, keepdim=True))
        finite = torch.where(top.isfinite(), top, torch.zeros_like(top))  # no key seen yet: exp(-inf - 0) is 0
        weights = (scores - finite).exp()
        kept = (self.top - finite).exp()
        self.total = self.total * kept + weights.sum(-1, keepdim=True)
        self.sum = self.sum * kept + weights @ v
        self.top = top

    def result(self) -> Tensor:
        """(B, T, H * V); zeros for a query that has seen nothing."""
        out = self.sum / self.total.clamp_min(torch.finfo(self.total.dtype).tiny)
        return out.unflatten(2, (-1, self.queries)).flatten(1, 2).transpose(1, 2).flatten(2)


def attend_and_store(
    q: Tensor,
    rows: Rows,
    cache: KVCache,
    layer: int,
    *,
    kv_heads: int,
    scale: float,
    null: tuple[Tensor, Tensor] | None = None,
    block: int = 1024,
) -> Tensor:
    """Store the rows (B, T, W) of T new tokens in a layer and return their attention, (B, T, H * V) in q's dtype.

    `q` (B, H, T, K): queries of the new tokens, which stand behind the positions that the cache counts; decoupled ones
    have their parts in the order of the layer's tensors, of which the last holds the values. `null`: the key (G, K)
    and value (G, V) that every query sees. `block`: cached positions unpacked at a time. The softmax runs in float32,
    or float64 for float64 queries.
    """
    tensors, start, ring_from, first = cache.layers[layer], cache.length, cache.ring_from, cache.first
    precise = torch.promote_types(q.dtype, torch.float32)
    stop = start + q.size(2)
    position = torch.arange(start, stop, device=q.device)  # of each query
    residual = max(tensor.residual for tensor in tensors.values())
    near_from = (position - residual + 1).clamp_min(ring_from)  # what each query reads from the ring starts here
    oldest = max(min(start - residual + 1, start), ring_from, 0) if residual else stop

    value_width = list(tensors.values())[-1].width
    softmax = OnlineSoftmax(q.to(precise), kv_heads, value_width // kv_heads, scale)
    if null is not None:
        key, value = (part.to(precise)[None, :, None].expand(q.size(0), -1, -1, -1) for part in null)
        softmax.add(key, value)

    if residual:  # before the new rows overwrite what their first queries still see
        near = {
            name: torch.cat((tensor.read_recent(oldest, start, precise), tensor.rounded(rows[name].to(precise))), dim=1)
            for name, tensor in tensors.items()
        }
        key_position = torch.arange(oldest, stop, device=q.device)
        outside = (key_position > position[:, None]) | (key_position < near_from[:, None])  # (T, S)
        softmax.add(*_heads(near, kv_heads), _hidden(outside, key_position, first))
    cache.write(layer, rows)

    far_stop = max(stop - residual, ring_from) if residual else stop
    for begin, end in _blocks(far_stop, block):
        stored = {name: tensor.read(begin, end, precise) for name, tensor in tensors.items()}
        key_position = torch.arange(begin, end, device=q.device)
        outside = key_position > position[:, None]  # (T, S)
        if residual:
            outside = outside | (key_position >= near_from[:, None])
        softmax.add(*_heads(stored, kv_heads), _hidden(outside, key_position, first))
    return softmax.result().to(q.dtype)


def _heads(rows: Rows, kv_heads: int) -> tuple[Tensor, Tensor]:
    """Rows (B, S, W) by name -> keys (B, G, S, K), their parts side by side, and values (B, G, S, V)."""
    *keys, values = (x.unflatten(-1, (kv_heads, -1)).transpose(1, 2) for x in rows.values())
    return torch.cat(keys, dim=-1) if len(keys) > 1 else keys[0], values


def _hidden(outside: Tensor, key_position: Tensor, first: Tensor | None) -> Tensor:
    """(T, S) -> (1, T, S), or (B, T, S) where requests have padding."""
    return outside[None] if first is None else outside | (key_position < first[:, None])[:, None]


def _blocks(stop: int, block: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, stop, block):
        yield begin, min(begin + block, stop)

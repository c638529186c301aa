"""Where the model and its cache meet: one layer's cache, as the model's attention sees it.

Legend: B batch, H heads, G key and value heads, T new tokens, K head dim of queries and keys, V head dim of values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from bottleneck_core.kvcache import KVCache, attend_and_store
from bottleneck_core.kvcache.rotation import rotate
from bottleneck_core.model import Projected

Fused = Literal["none", "auto", "triton1pass", "triton2pass"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How cached tokens are read: `block` of them at a time, or by a fused kernel with its own `tuning`."""

    block: int = 1024
    fused: Fused = "auto"
    tuning: Any = None


class CachedLayer:
    """One layer of a `KVCache`, in the model's terms (`model.attention.base.LayerCache`).

    `fallback` tells why the last single token was not read by a fused kernel, None where it was or none was asked for.
    """

    def __init__(self, cache: KVCache, layer: int, plan: Plan) -> None:
        self.cache = cache
        self.layer = layer
        self.plan = plan
        self.fallback: str | None = None

    @property
    def start(self) -> int | Tensor:
        """Position of the next token; padding on the left does not count."""
        return self.cache.length if self.cache.first is None else self.cache.length - self.cache.first

    def attend(self, projected: Projected) -> Tensor:
        """Store the new keys and values, and return the attention of the new queries, (B, T, H * V)."""
        if self.cache.policy is not None and self.cache.policy.hadamard:
            projected = rotated(projected)
        rows = self._rows(projected)
        # While the window is still filling, it is all there is to read: no kernel helps, and its slots still move.
        filling = self.cache.length + 1 < self.cache.residual
        if projected.q.size(2) == 1 and self.plan.fused != "none" and not filling:
            from bottleneck_core.generate import fused

            self.fallback = fused.unsupported(projected, self.cache, self.layer, self.plan)
            if self.fallback is None:
                return fused.attend_and_store(projected, rows, self.cache, self.layer, self.plan)
        return attend_and_store(
            projected.q,
            rows,
            self.cache,
            self.layer,
            kv_heads=projected.k.size(1),
            scale=projected.scale,
            null=null_of(projected),
            block=self.plan.block,
        )

    def _rows(self, projected: Projected) -> dict[str, Tensor]:
        """Keys and values by the names of the cached tensors, heads merged: (B, T, W) each."""
        keys = projected.k.split(_key_parts(projected), dim=-1)
        names = list(self.cache.layers[self.layer])
        return {name: part.transpose(1, 2).flatten(2) for name, part in zip(names, (*keys, projected.v), strict=True)}


def rotated(projected: Projected) -> Projected:
    """Queries and keys turned by Hadamard matrices, each part of the keys by its own."""
    parts = _key_parts(projected)
    null_k = projected.null_k
    return replace(
        projected,
        q=rotate(projected.q, parts),
        k=rotate(projected.k, parts),
        null_k=None if null_k is None else rotate(null_k.to(projected.k.dtype), parts),
    )


def _key_parts(projected: Projected) -> tuple[int, ...]:
    """Head dims of the cached key tensors: one, or the semantic and the geometric one."""
    width, semantic = projected.k.size(-1), projected.sem_width
    return (semantic, width - semantic) if semantic else (width,)


def null_of(projected: Projected) -> tuple[Tensor, Tensor] | None:
    if projected.null_k is None or projected.null_v is None:
        return None
    return projected.null_k, projected.null_v


def layers_of(cache: KVCache, plan: Plan) -> list[CachedLayer]:
    """All layers of a cache, in the model's order."""
    return [CachedLayer(cache, layer, plan) for layer in range(len(cache.layers))]


def inference_dtype(model: torch.nn.Module) -> torch.dtype:
    """The dtype in which the model computes, and which a native cache stores."""
    return next(model.parameters()).dtype

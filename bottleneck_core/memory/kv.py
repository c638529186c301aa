"""Bytes of the KV cache of our own models, from a configuration or a plain dict.

Values per token and layer: standard 2 d_model; bottleneck 2 attn_dim; gqa 2 kv_head (attn_dim / n_head); decoupled
sem_dim + geo_dim + attn_dim. The learned null key and value are weights and are never cached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bottleneck_core.memory.formats import FORMATS
from bottleneck_core.memory.policy import CachePolicy

TOKENS_128K = 128_000


@dataclass(frozen=True, kw_only=True)
class CachedTensor:
    """One cached tensor over its layers: `bytes` = layers x (tokens x row_bytes + residual rows in fp16) x batch."""

    name: str
    layers: int
    kind: str
    qblock: int
    width: int
    row_bytes: int
    tokens: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class KVMemory:
    """Size of a cache in bytes at `context` tokens and `batch` requests.

    `bytes_per_token` is what the first token of a request adds, `slope_bytes_per_token` what one more adds at this
    context; `baseline_fp16_bytes` is standard attention of the same d_model in fp16.
    """

    context: int
    batch: int
    bytes: int
    bytes_per_token: int
    slope_bytes_per_token: int
    fixed_bytes_per_request: int
    baseline_fp16_bytes: int
    compression: float
    tensors: tuple[CachedTensor, ...]
    totals: dict[str, int]


def cached_widths(model: Any) -> dict[str, int]:
    """Values per token and layer by cached tensor. `model`: object or dict with the Model Config names."""
    mode = setting_of(model, "attn_mode")
    if mode == "standard":
        return {"k": setting_of(model, "d_model"), "v": setting_of(model, "d_model")}
    if mode == "bottleneck":
        return {"k": setting_of(model, "attn_dim"), "v": setting_of(model, "attn_dim")}
    if mode == "gqa":
        width = (setting_of(model, "kv_head") or setting_of(model, "n_head")) * (
            setting_of(model, "attn_dim") // setting_of(model, "n_head")
        )
        return {"k": width, "v": width}
    if mode == "decoupled":
        return {
            "k_sem": setting_of(model, "sem_dim"),
            "k_geo": setting_of(model, "geo_dim"),
            "v": setting_of(model, "attn_dim"),
        }
    raise ValueError(f"unknown attn_mode {mode}: known are standard, gqa, bottleneck, decoupled")


def kv_memory(model: Any, context: int, batch: int = 1, policy: CachePolicy | None = None, page: int = 1) -> KVMemory:
    """Bytes of the cache of `model` (object or dict with the Model Config names) at `context` tokens.

    Storage is counted in whole pages of `page` tokens. Without a policy the model's own `kv_*` settings count, and
    fp16 where it has none. Raises ValueError for sizes below 1 and unknown names.
    """
    if context < 1 or batch < 1 or page < 1:
        raise ValueError(f"context, batch and page must be at least 1, got {context}, {batch}, {page}")
    policy = policy or CachePolicy.of(model)
    layers, widths = setting_of(model, "n_layer"), cached_widths(model)

    def total(tokens: int) -> list[CachedTensor]:
        return [_tensor(name, width, layers, tokens, batch, policy, page) for name, width in widths.items()]

    def size(tokens: int) -> int:
        return sum(tensor.bytes for tensor in total(tokens)) if tokens else 0

    tensors = total(context)
    in_bytes = sum(tensor.bytes for tensor in tensors)
    baseline = layers * context * 2 * setting_of(model, "d_model") * 2 * batch
    return KVMemory(
        context=context,
        batch=batch,
        bytes=in_bytes,
        bytes_per_token=size(1) // batch,
        slope_bytes_per_token=(size(context + 1) - in_bytes) // batch,
        fixed_bytes_per_request=0,
        baseline_fp16_bytes=baseline,
        compression=baseline / in_bytes,
        tensors=tuple(tensors),
        totals=dict.fromkeys(("logical", "engine_reserved", "conservative"), in_bytes),
    )


def _tensor(
    name: str, width: int, layers: int, context: int, batch: int, policy: CachePolicy, page: int
) -> CachedTensor:
    fmt, qblock = FORMATS[policy.kind_of(name)], policy.qblock_of(name)
    tokens = -(-context // page) * page
    row = fmt.row_bytes(width, qblock)
    residual = min(context, policy.residual) * width * 2 if fmt.quantised else 0
    return CachedTensor(
        name=name,
        layers=layers,
        kind=fmt.name,
        qblock=fmt.block(width, qblock),
        width=width,
        row_bytes=row,
        tokens=tokens,
        bytes=layers * (tokens * row + residual) * batch,
    )


def setting_of(model: Any, name: str) -> Any:
    if isinstance(model, Mapping):
        if name not in model:
            raise ValueError(f"the model configuration lacks {name}")
        return model[name]
    return getattr(model, name)

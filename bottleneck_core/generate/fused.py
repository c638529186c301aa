"""The fused kernels over a cache: what they are given, and whether they can take it.

They read the packed pages by address. The tables of addresses are made anew only when a tensor gets a new page.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from bottleneck_core import kernels
from bottleneck_core.generate.layer import Plan
from bottleneck_core.kvcache import KVCache
from bottleneck_core.kvcache.tensor import NATIVE, CachedTensor
from bottleneck_core.model import Projected

_NATIVE_KINDS = {"torch.float32": "fp32", "torch.float16": "fp16", "torch.bfloat16": "bf16"}


def unsupported(projected: Projected, cache: KVCache, layer: int, plan: Plan) -> str | None:
    """Why the kernels cannot read this layer, in words; None where they can."""
    if plan.fused == "auto" and cache.device.type != "cuda":
        return "fused decoding needs a CUDA device"
    return unreadable(projected.q[:, :, 0], projected.k.size(1), cache, layer)


def unreadable(q: Tensor, heads: int, cache: KVCache, layer: int) -> str | None:
    """Why the kernels cannot take queries like q (B, H, K) over `heads` cached heads, in words; None where they can."""
    if any(_kind(tensor) is None for tensor in cache.layers[layer].values()):
        return f"fused decoding does not read {cache.dtype}".replace("torch.", "")
    tensors = cache.layers[layer].values()
    *keys, values = [described(tensor, heads, q, None) for tensor in tensors]  # addresses do not matter here
    return kernels.unsupported(q, keys, values, page=cache.page)


def attend_and_store(
    projected: Projected, rows: Mapping[str, Tensor], cache: KVCache, layer: int, plan: Plan
) -> Tensor:
    """As `kvcache.attend_and_store`, for one new token a request: (B, 1, H * V)."""
    cache.write(layer, rows)
    tokens = cache.length + 1
    heads = projected.k.size(1)
    *keys, values = [
        described(tensor, heads, tensor.code_addresses(), tensor.scale_addresses())
        for tensor in cache.layers[layer].values()
    ]
    residual = max(tensor.residual for tensor in cache.layers[layer].values())
    out = kernels.decode(
        projected.q[:, :, 0],
        keys,
        values,
        tokens=tokens,
        page=cache.page,
        ring_from=max(tokens - residual, cache.ring_from) if residual else tokens,
        scale=projected.scale,
        null_k=projected.null_k,
        null_v=projected.null_v,
        first=cache.first,
        passes=1 if plan.fused == "triton1pass" else 2,
        tuning=plan.tuning,
    )  # (B, H, V)
    return out.flatten(1)[:, None].to(projected.q.dtype)


def described(tensor: CachedTensor, heads: int, codes: Tensor, scales: Tensor | None) -> kernels.PackedTensor:
    """A cached tensor of `heads` heads as the kernels see it, its pages at the addresses in `codes` and `scales`."""
    return kernels.PackedTensor(
        kind=_kind(tensor) or NATIVE,
        heads=heads,
        head_dim=tensor.width // heads,
        qblock=tensor.block,
        codes=codes,
        scales=scales,
        ring=tensor.ring,
    )


def _kind(tensor: CachedTensor) -> str | None:
    return _NATIVE_KINDS.get(str(tensor.dtype)) if tensor.kind == NATIVE else tensor.kind

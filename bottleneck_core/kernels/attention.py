"""Causal attention of narrow heads, with a null key: the kernels of `triton_attention.py` as a function with gradients.

Legend: B batch, T tokens, H heads, G key and value heads (G divides H), K head dim of queries and keys, V of values.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Wider heads are better served by kernels that are made for them.
WIDEST = 32
# Queries and keys of a tile and warps, forward and backward by query and by key, measured on an H200.
_FORWARD, _QUERIES, _KEYS = (64, 128, 4), (128, 64, 8), (32, 128, 4)


def attention(q: Tensor, k: Tensor, v: Tensor, null_k: Tensor | None, null_v: Tensor | None, scale: float) -> Tensor:
    """softmax(scale q k^T) v over each token and those before it, (B, T, H, V) in q's dtype.

    q (B, T, H, K), k (B, T, G, K), v (B, T, G, V), of one dtype, their last dimension dense. null_k (G, K) and null_v
    (G, V): a key and a value that every query sees. K and V are at most `WIDEST`. Needs Triton (`available`).
    """
    return torch.ops.bottleneck_core.attention(q, k, v, null_k, null_v, scale)[0]


@torch.library.custom_op("bottleneck_core::attention", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, null_k: Tensor | None, null_v: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The output (B, T, H, V), and by query the logarithm to base two of its sum of exponentials, (B, H, T) float32."""
    from bottleneck_core.kernels.triton_attention import attention_forward

    B, T, H, K = q.shape
    G, V = v.shape[2:]
    out, lse = q.new_empty(B, T, H, V), q.new_empty(B, H, T, dtype=torch.float32)
    launch: Any = attention_forward[(-(-T // _FORWARD[0]), B * H)]
    launch(
        q, k, v, *_nulls(q, null_k, null_v), out, lse, scale * math.log2(math.e), T, H, G,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        **_constants(K, V), **_tile(_FORWARD, T), NULL=null_k is not None,
    )  # fmt: skip
    return out, lse


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, null_k: Tensor | None, null_v: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    B, T, H, _ = q.shape
    return q.new_empty(B, T, H, v.size(3)), q.new_empty(B, H, T, dtype=torch.float32)


@torch.library.custom_op("bottleneck_core::attention_backward", mutates_args=())
def _gradients(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, null_k: Tensor | None, null_v: Tensor | None,
    out: Tensor, lse: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v in their dtype, and of null key (G, K) and value (G, V) in float32."""
    from bottleneck_core.kernels.triton_attention import attention_backward_keys, attention_backward_queries

    B, T, H, K = q.shape
    G, V = v.shape[2:]
    d_out = d_out if d_out.stride(3) == 1 else d_out.contiguous()
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    delta = torch.empty_like(lse)
    factor, strides = scale * math.log2(math.e), [s for x in (q, k, v, d_out) for s in x.stride()[:3]]
    constants = _constants(K, V)
    tiles, KP = -(-T // _QUERIES[0]), constants["KP"]
    d_nulls = lse.new_zeros(tiles, B, G, H // G, KP + constants["VP"])
    launch: Any = attention_backward_queries[(tiles, B * H)]
    launch(
        q, k, v, *_nulls(q, null_k, null_v), out, lse, d_out, dq, delta, d_nulls, factor, scale, T, H, G, *strides,
        **constants, **_tile(_QUERIES, T), NULL=null_k is not None,
    )  # fmt: skip
    launch = attention_backward_keys[(-(-T // _KEYS[1]), B * G)]
    launch(q, k, v, lse, d_out, delta, dk, dv, factor, scale, T, H, G, *strides, **constants, **_tile(_KEYS, T))
    d_null = d_nulls.sum((0, 1, 3))  # (G, KP + VP)
    # Copies even where a part would be dense: an operator's results must not share memory.
    of_key, of_value = d_null[:, :K], d_null[:, KP : KP + V]
    dense = torch.contiguous_format
    return dq, dk, dv, of_key.clone(memory_format=dense), of_value.clone(memory_format=dense)


@_gradients.register_fake
def _(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, null_k: Tensor | None, null_v: Tensor | None,
    out: Tensor, lse: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    (G, K), V = k.shape[2:], v.size(3)
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    return dq, dk, dv, lse.new_empty(G, K), lse.new_empty(G, V)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, d_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, null_k, null_v, out, lse = ctx.saved_tensors
    dq, dk, dv, d_null_k, d_null_v = torch.ops.bottleneck_core.attention_backward(
        d_out, q, k, v, null_k, null_v, out, lse, ctx.scale
    )
    nulls = (None, None) if null_k is None else (d_null_k.to(null_k.dtype), d_null_v.to(null_v.dtype))
    return dq, dk, dv, *nulls, None


_forward.register_autograd(_backward, setup_context=_keep)


def _nulls(q: Tensor, null_k: Tensor | None, null_v: Tensor | None) -> tuple[Tensor, Tensor]:
    """Addresses for the kernels; without a null key any will do, they are not read."""
    return (q, q) if null_k is None or null_v is None else (null_k.contiguous(), null_v.contiguous())


def _tile(cut: tuple[int, int, int], T: int) -> dict[str, int]:
    """Queries and keys of a tile and warps as the kernels take them, and whether T tokens are so many whole tiles."""
    M, N, warps = cut
    return {"M": M, "N": N, "num_warps": warps, "WHOLE": T % M == 0 and T % N == 0}


def _constants(K: int, V: int) -> dict[str, int]:
    """Head dims, and those that matrix units take: powers of two from 16 on."""
    padded = [max(16, 1 << (D - 1).bit_length()) for D in (K, V)]
    return {"K": K, "V": V, "KP": padded[0], "VP": padded[1]}

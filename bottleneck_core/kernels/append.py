"""What a new token does before it is attended to, one launch each: its rows are stored, its heads are rotated.

Where it stands is read on the device, so that a launch may be recorded once and repeated for the tokens that follow.

Legend: B batch, H heads, G cached heads, K head dim of queries (all key parts together), V head dim of values, D head
dim that is rotated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bottleneck_core.kernels.packed import VALUE_KINDS, PackedTensor
from bottleneck_core.kernels.plan import Tuning, plan

FP16_LARGEST = 65504.0
FP32_LARGEST = 3.4028234663852886e38


def largest(tensor: PackedTensor) -> float:
    """The largest magnitude that a tensor can hold: fp16's where values, scales or the window are fp16."""
    fp16 = tensor.kind == "fp16" or tensor.kind not in VALUE_KINDS or tensor.ring is not None
    return FP16_LARGEST if fp16 else FP32_LARGEST


def append(
    k: Tensor,
    v: Tensor,
    keys: Sequence[PackedTensor],
    values: PackedTensor,
    *,
    counts: Tensor,
    page: int,
    broken: Tensor,
    checked: bool = True,
) -> None:
    """Pack keys (B, G, K) and values (B, G, V) of one new token into the pages (and windows) at counts[0] - 1.

    `keys`: the parts of K one after another. `counts` as in `decode`, on the device: the new token is the last of
    counts[0]. The pages must be there and nobody else's. Where a value cannot be stored and `checked`, `broken` (one
    int64) becomes 1 and stays so. The bytes are those of `kvcache.formats.pack`.
    """
    from bottleneck_core.kernels import triton_append

    tensors = (keys[0], keys[-1], values)
    cut = plan(tuple(key.shape for key in keys), values.shape, values.heads, page, Tuning())
    launch: Any = triton_append.append[(k.size(0), len(keys) + 1)]
    places = [
        part
        for tensor in tensors
        for part in (
            tensor.codes,
            tensor.codes if tensor.scales is None else tensor.scales,
            k if tensor.ring is None else tensor.ring,
        )
    ]
    launch(
        k, v, counts, broken, *places, *k.stride(), *v.stride(),
        K0=tuple(cut.keys[0]), K1=tuple(cut.keys[-1]), V=tuple(cut.value), PARTS=len(keys),
        LIMITS=tuple(largest(tensor) if checked else 0.0 for tensor in tensors), PAGE=page,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


def turn(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Heads x (B, H, 1, D) rotated by the angles of cosines and sines (B or 1, D/2) float32; same shape and type."""
    from bottleneck_core.kernels import triton_append

    batch, heads, _, dim = x.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    launch: Any = triton_append.turn[(batch,)]
    launch(
        x, cosines, sines, out, x.stride(0), x.stride(1), x.stride(3), cosines.stride(0) if cosines.size(0) > 1 else 0,
        H=heads, HALF=dim // 2, num_warps=1 if heads * dim <= 1024 else 4, enable_fp_fusion=False,
    )  # fmt: skip
    return out

"""Fused decode attention over packed tensors: what is asked, and the launch of the Triton kernels that answer it.

Legend: B batch, H query heads, G cached heads (G divides H), K head dim of queries (all key parts together), V head dim
of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from bottleneck_core.kernels.packed import PackedTensor
from bottleneck_core.kernels.plan import Plan, Tuning, plan, power_of_two, refusal

# The 16 levels of QLoRA (Dettmers et al. 2023), appendix E.
NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
PROGRAMS_A_PROCESSOR = 8  # programs wanted on each multiprocessor: several run at once, and uneven ends even out
FEWEST_TILES = 4  # a span shorter than this costs more in the merge than it saves


def available() -> str | None:
    """Why Triton kernels cannot run here at all, in words, or None where they can."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if not torch.cuda.is_available() and not _interpreted():
        return "no CUDA device"
    return None


def unsupported(q: Tensor, keys: Sequence[PackedTensor], values: PackedTensor, *, page: int, **_: object) -> str | None:
    """Why `decode` cannot take this case, one reason in words, or None where it can. Takes decode's arguments."""
    reason = available()
    if reason:
        return reason
    if q.device.type != "cuda" and not _interpreted():
        return f"the fused kernels run on CUDA, not on {q.device.type}"
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the fused kernels take no {str(q.dtype).removeprefix('torch.')} queries"
    if sum(key.head_dim for key in keys) != q.size(-1):
        return "queries and keys have different head dims"
    for tensor in (*keys, values):
        if tensor.ring is not None and tensor.kind in ("fp32", "fp16", "bf16"):
            return f"{tensor.kind} has no fp16 window"
    return refusal(tuple(key.shape for key in keys), values.shape, q.size(1), page)


def decode(
    q: Tensor,
    keys: Sequence[PackedTensor],
    values: PackedTensor,
    *,
    tokens: int,
    page: int,
    ring_from: int,
    scale: float,
    null_k: Tensor | None = None,
    null_v: Tensor | None = None,
    first: Tensor | None = None,
    passes: Literal[1, 2] = 2,
    tuning: Tuning | None = None,
) -> Tensor:
    """Attention of one new query a batch row over the cached positions [0, tokens): (B, H, V) in q's type.

    q (B, H, K) is rotated and multiplied by exp(t); its columns are the key parts one after another. The score is
    `scale * q . k`; query head h reads cached head h // (H / G). Positions in [ring_from, tokens) are read from the
    `ring` of every tensor that has one. null_k (G, K) and null_v (G, V) are one more key, always visible. `first` (B,)
    int32: positions below are hidden. passes=1 walks all tokens in one program a row and group of heads, 2 splits them
    into spans that a second kernel merges. Nothing waits for the device. Raises ValueError with the reason where
    `unsupported` has one.

    Softmax and sums are float32; queries, weights and codes meet in fp16 (bf16, or 3 x tf32, where the cache is bf16 or
    fp32).
    """
    reason = unsupported(q, keys, values, page=page)
    if reason:
        raise ValueError(reason)
    from bottleneck_core.kernels import triton_decode

    q = q.contiguous()
    batch, heads, key_dim = q.shape
    cut = plan(tuple(key.shape for key in keys), values.shape, heads, page, tuning or Tuning())
    has_ring = any(tensor.ring is not None for tensor in (*keys, values)) and ring_from < tokens
    splits, tiles = (1, -(-tokens // cut.block_n)) if passes == 1 else _spans(cut, batch, tokens, tuning, q.device)
    out = torch.empty(batch, heads, values.head_dim, dtype=q.dtype, device=q.device)
    final = splits == 1
    parts = out if final else torch.empty(batch, heads, splits, values.head_dim, device=q.device)
    lse = out if final else torch.empty(batch, heads, splits, device=q.device)
    columns, levels = _tables(cut, q.device)
    spans: Any = triton_decode.spans[(cut.groups * splits * batch,)]
    spans(
        q, q if null_k is None else null_k.contiguous(), q if null_v is None else null_v.contiguous(),
        columns if first is None else first, columns, levels, parts, lse,
        *_pointers(keys[0], q), *_pointers(keys[-1], q), *_pointers(values, q),
        scale, tokens, ring_from, tiles, splits,
        K0=tuple(cut.keys[0]), K1=tuple(cut.keys[-1]), V=tuple(cut.value), PARTS=len(keys),
        H=heads, REP=heads // values.heads, KT=key_dim, GROUP=cut.group, GROUPS=cut.groups,
        NULL_DIM=power_of_two(max(key.head_dim for key in keys)), PAGE=page, N=cut.block_n, C=cut.padded_columns,
        HAS_NULL=null_k is not None, HAS_FIRST=first is not None, HAS_RING=has_ring, FINAL=final,
        WIDE=_interpreted(), num_warps=cut.num_warps, num_stages=cut.num_stages,
    )  # fmt: skip
    if not final:
        padded = power_of_two(values.head_dim)
        merge: Any = triton_decode.merge[(batch * heads,)]
        merge(parts, lse, out, splits, D=values.head_dim, D_PAD=padded, S=max(16, min(128, 8192 // padded)))
    return out


def _spans(cut: Plan, batch: int, tokens: int, tuning: Tuning | None, device: torch.device) -> tuple[int, int]:
    """Spans of tokens a row and group, and tiles a span."""
    tiles = -(-tokens // cut.block_n)
    wanted = tuning.splits if tuning and tuning.splits else 0
    if not wanted:
        programs = PROGRAMS_A_PROCESSOR * _processors(device)
        wanted = min(-(-programs // (batch * cut.groups)), -(-tiles // FEWEST_TILES))
    each = -(-tiles // max(1, min(wanted, tiles)))
    return -(-tiles // each), each


@lru_cache(maxsize=16)
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@lru_cache(maxsize=256)
def _tables(cut: Plan, device: torch.device) -> tuple[Tensor, Tensor]:
    """(groups, 2, C) int32 query head and value block of each column, -1 where there is none; nf4's levels in fp16."""
    table = torch.full((cut.groups, 2, cut.padded_columns), -1, dtype=torch.int32)
    for index, columns in enumerate(cut.columns):
        table[index, :, : len(columns)] = torch.tensor(columns, dtype=torch.int32).T
    return table.to(device), torch.tensor(NF4_LEVELS, dtype=torch.float16, device=device)


def _pointers(tensor: PackedTensor, absent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Addresses of codes, addresses of scales, window; what the tensor has not is never read."""
    scales = tensor.codes if tensor.scales is None else tensor.scales
    return tensor.codes, scales, absent if tensor.ring is None else tensor.ring


def _interpreted() -> bool:
    from triton import knobs

    return bool(knobs.runtime.interpret)

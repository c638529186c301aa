"""Fused decode attention over packed tensors: what is asked, and the launch of the Triton kernels that answer it.

Legend: B batch, H query heads, G cached heads (G divides H), K head dim of queries (all key parts together), V head dim
of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from bottleneck_core.kernels.packed import PackedTensor
from bottleneck_core.kernels.plan import Plan, Tuning, plan, power_of_two, refusal

MERGED_AT_ONCE = 512  # partial results of a head that the merge loads together
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
    counts: Tensor | None = None,
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

    `counts` (int32, on the device) holds `tokens` and `ring_from` in its first two places, and the arguments are then
    the most that they may become: the launch is the same for all of them, and so are the spans that each is cut into.
    Windows are full in that case, and begin behind position 0.

    Softmax and sums are float32; queries, weights and codes meet in fp16 (bf16, or 3 x tf32, where the cache is bf16 or
    fp32).
    """
    reason = unsupported(q, keys, values, page=page)
    if reason:
        raise ValueError(reason)
    from bottleneck_core.kernels import triton_decode

    q = q.contiguous()
    tuning = tuning or Tuning()
    has_ring = any(tensor.ring is not None for tensor in (*keys, values)) and ring_from < tokens
    if has_ring and (passes == 1 or ring_from == 0):
        tuning = replace(tuning, kernel="bytes")
    call = _Call(q, keys, values, null_k, null_v, first, counts, scale, tokens, ring_from, page, tuning)
    cut = call.plan
    if not cut.words:
        splits, tiles = call.spans(tokens, passes)
        outputs = _Outputs.of(call, splits)
        call.bytes(cut, outputs, has_ring, splits, tiles)
    else:
        paged = ring_from if has_ring else tokens
        splits, tiles = call.spans(paged, passes)
        outputs = _Outputs.of(call, splits + has_ring)
        call.words(cut, outputs, has_ring, splits, tiles)
        if has_ring:  # one more span, of the window alone
            tail = replace(call, tuning=Tuning(kernel="bytes", group=tuning.group), null_k=None, null_v=None)
            tail.bytes(tail.plan, outputs, True, 1, 0, line=splits)
    if not outputs.final:
        padded = power_of_two(values.head_dim)
        merge: Any = triton_decode.merge[(call.batch * call.heads,)]
        early = _early(q.device)
        merge(
            outputs.parts, outputs.lse, outputs.out, outputs.lines,
            D=values.head_dim, D_PAD=padded, S=max(16, min(MERGED_AT_ONCE, 16384 // padded)), EARLY=early, num_warps=8,
            **({"launch_pdl": True} if early else {}),
        )  # fmt: skip
    return outputs.out


@dataclass(frozen=True)
class _Outputs:
    """Where the spans write: `lines` partial results a head, or the answer itself where there is one span."""

    out: Tensor
    parts: Tensor
    lse: Tensor
    lines: int

    @property
    def final(self) -> bool:
        return self.lines == 1

    @staticmethod
    def of(call: _Call, lines: int) -> _Outputs:
        shape, device = (call.batch, call.heads, call.values.head_dim), call.q.device
        out = torch.empty(shape, dtype=call.q.dtype, device=device)
        if lines == 1:
            return _Outputs(out, out, out, 1)
        parts = torch.empty(*shape[:2], lines, shape[2], device=device)
        return _Outputs(out, parts, torch.empty(*shape[:2], lines, device=device), lines)


@dataclass(frozen=True)
class _Call:
    """The arguments of `decode`, as the launches of either kernel need them."""

    q: Tensor
    keys: Sequence[PackedTensor]
    values: PackedTensor
    null_k: Tensor | None
    null_v: Tensor | None
    first: Tensor | None
    counts: Tensor | None
    scale: float
    tokens: int
    ring_from: int
    page: int
    tuning: Tuning

    @property
    def batch(self) -> int:
        return self.q.size(0)

    @property
    def heads(self) -> int:
        return self.q.size(1)

    @property
    def plan(self) -> Plan:
        return plan(tuple(key.shape for key in self.keys), self.values.shape, self.heads, self.page, self.tuning)

    def spans(self, tokens: int, passes: int) -> tuple[int, int]:
        """Spans of tokens a row and group, and tiles a span: where the device counts, the least that a span takes."""
        cut, least, wanted = self.plan, 1, self.tuning.splits
        tiles = -(-tokens // cut.block_n)
        if passes == 1:
            return 1, tiles
        if not wanted:
            programs, least = cut.programs * _processors(self.q.device), FEWEST_TILES
            wanted = min(-(-programs // (self.batch * cut.groups)), -(-tiles // least))
        spans = max(1, min(wanted, tiles))
        if self.counts is not None:
            return spans, least
        each = -(-tiles // spans)
        return -(-tiles // each), each

    def bytes(self, cut: Plan, to: _Outputs, has_ring: bool, splits: int, tiles: int, line: int = 0) -> None:
        """Launch the kernel whose matrix element is a byte; `line` is its first one of the partial results."""
        from bottleneck_core.kernels import triton_decode

        q, keys = self.q, self.keys
        columns = _tables(cut, q.device)
        spans: Any = triton_decode.spans[(cut.groups * splits * self.batch,)]
        spans(
            q, *self._nulls(), columns if self.first is None else self.first, columns,
            columns if self.counts is None else self.counts, to.parts, to.lse,
            *_pointers(keys[0], q), *_pointers(keys[-1], q), *_pointers(self.values, q),
            self.scale, self.tokens, self.ring_from, tiles, splits, to.lines, line,
            GROUP=cut.group, HAS_RING=has_ring, **self._fixed(cut, to),
        )  # fmt: skip

    def words(self, cut: Plan, to: _Outputs, has_ring: bool, splits: int, tiles: int) -> None:
        """Launch the kernel whose matrix element is a 16-bit word, over the pages alone, up to the window."""
        from bottleneck_core.kernels import triton_words

        q, keys = self.q, self.keys
        columns = _tables(cut, q.device)
        spans: Any = triton_words.word_spans[(cut.groups * splits * self.batch,)]
        spans(
            q, *self._nulls(), columns if self.first is None else self.first, columns,
            columns if self.counts is None else self.counts, to.parts, to.lse,
            *_pointers(keys[0], q)[:2], *_pointers(keys[-1], q)[:2], *_pointers(self.values, q)[:2],
            self.scale, self.ring_from if has_ring else self.tokens, tiles, splits, to.lines,
            COUNT=int(has_ring and self.counts is not None), FOLD=self.tuning.fold, maxnreg=cut.registers,
            **self._fixed(cut, to),
        )  # fmt: skip

    def _nulls(self) -> tuple[Tensor, Tensor]:
        null_k, null_v = self.null_k, self.null_v
        return self.q if null_k is None else null_k.contiguous(), self.q if null_v is None else null_v.contiguous()

    def _fixed(self, cut: Plan, to: _Outputs) -> dict[str, Any]:
        """What both kernels are compiled for."""
        return {
            "K0": tuple(cut.keys[0]), "K1": tuple(cut.keys[-1]), "V": tuple(cut.value), "PARTS": len(self.keys),
            "H": self.heads, "REP": self.heads // self.values.heads, "KT": self.q.size(-1), "GROUPS": cut.groups,
            "NULL_DIM": power_of_two(max(key.head_dim for key in self.keys)), "PAGE": self.page, "N": cut.block_n,
            "C": cut.padded_columns, "HAS_NULL": self.null_k is not None, "HAS_FIRST": self.first is not None,
            "COUNTED": self.counts is not None, "FINAL": to.final, "WIDE": _interpreted(),
            "EARLY": not to.final and _early(self.q.device),
            "num_warps": cut.num_warps, "num_stages": cut.num_stages,
        }  # fmt: skip


@lru_cache(maxsize=16)
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@lru_cache(maxsize=256)
def _tables(cut: Plan, device: torch.device) -> Tensor:
    """(groups, 2, C) int32 query head and value block of each column, -1 where there is none."""
    table = torch.full((cut.groups, 2, cut.padded_columns), -1, dtype=torch.int32)
    for index, columns in enumerate(cut.columns):
        table[index, :, : len(columns)] = torch.tensor(columns, dtype=torch.int32).T
    return table.to(device)


def _pointers(tensor: PackedTensor, absent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Addresses of codes, addresses of scales, window; what the tensor has not is never read."""
    scales = tensor.codes if tensor.scales is None else tensor.scales
    return tensor.codes, scales, absent if tensor.ring is None else tensor.ring


@lru_cache(maxsize=16)
def _early(device: torch.device) -> bool:
    """Whether a kernel can be launched before the one that it waits for has ended (from Hopper on)."""
    return not _interpreted() and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def _interpreted() -> bool:
    from triton import knobs

    return bool(knobs.runtime.interpret)

"""The caches that `benchmarks.decode_attention` decodes over: their shapes, their packed contents, the exact answer.

Contents are random codes and scales, on the GPU, the same at each run of one seed.

Legend: B batch, G cached heads, H query heads, N cached tokens, K head dim of queries (all key parts together), V head
dim of values, D head dim of one tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bottleneck_core.kernels import PackedTensor
from bottleneck_core.kernels.packed import NF4_LEVELS

Spec = tuple[str, int, int]  # kind, head dim, block
PLAIN = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
LARGEST = {"q8_0": 127, "q4_0": 8, "nf4": 1}


@dataclass(frozen=True)
class Case:
    """A cache of one layer."""

    keys: tuple[Spec, ...]
    value: Spec
    heads: int = 8
    cached_heads: int = 8
    null: bool = False
    ring: int = 0


CASES = {
    "standard fp16": Case((("fp16", 64, 0),), ("fp16", 64, 0)),
    "bottleneck fp16": Case((("fp16", 12, 0),), ("fp16", 12, 0), null=True),
    "decoupled q4/q8/q4": Case((("q4_0", 4, 32), ("q8_0", 8, 32)), ("q4_0", 12, 32), null=True),
    "decoupled q4/q8/q4 ring": Case((("q4_0", 4, 32), ("q8_0", 8, 32)), ("q4_0", 12, 32), null=True, ring=128),
    "standard q8_0": Case((("q8_0", 64, 32),), ("q8_0", 64, 32)),
    "standard q4_0": Case((("q4_0", 64, 32),), ("q4_0", 64, 32)),
    "standard nf4": Case((("nf4", 64, 32),), ("nf4", 64, 32)),
    "standard fp8": Case((("fp8", 64, 0),), ("fp8", 64, 0)),
    "gqa fp16": Case((("fp16", 64, 0),), ("fp16", 64, 0), heads=8, cached_heads=2),
    "gqa 32/8 x 128 q8_0": Case((("q8_0", 128, 32),), ("q8_0", 128, 32), heads=32, cached_heads=8),
}
QUICK = ("standard fp16", "bottleneck fp16", "decoupled q4/q8/q4")


@dataclass
class Stored:
    """One packed tensor: pages (pages, B, page, row) of codes and scales."""

    spec: Spec
    heads: int
    codes: Tensor
    scales: Tensor | None
    ring: Tensor | None

    def packed(self) -> PackedTensor:
        """As the kernels take it."""
        kind, dim, block = self.spec
        scales = None if self.scales is None else _addresses(self.scales)
        return PackedTensor(kind, self.heads, dim, block, _addresses(self.codes), scales, self.ring)

    def values(self, row: int, ring_from: int, tokens: int, dtype: torch.dtype) -> Tensor:
        """(G, N, D) of batch row `row`, the window's rows in their places."""
        kind, dim, _ = self.spec
        codes = self.codes[:, row].flatten(0, 1)  # (N, row)
        if kind in PLAIN:
            out = codes.view(PLAIN[kind]).to(dtype)
        else:
            assert self.scales is not None
            scales = self.scales[:, row].flatten(0, 1).to(dtype)  # (N, blocks)
            codes = codes.unflatten(-1, (scales.size(1), -1))
            if kind == "q8_0":
                numbers = codes.view(torch.int8).to(dtype)
            else:
                nibbles = torch.cat((codes & 15, codes >> 4), -1)
                levels = torch.tensor(NF4_LEVELS, dtype=dtype, device=codes.device)
                numbers = levels[nibbles.long()] if kind == "nf4" else nibbles.to(dtype) - 8
            out = (numbers * scales[..., None]).flatten(1)[:, : self.heads * dim]
        out = out[:tokens].clone()
        if self.ring is not None:
            positions = torch.arange(ring_from, tokens, device=codes.device)
            out[positions] = self.ring[row, positions % self.ring.size(1)].to(dtype)
        return out.unflatten(-1, (self.heads, dim)).transpose(0, 1)

    @property
    def bytes(self) -> int:
        """Packed bytes of all pages."""
        return self.codes.nbytes + (0 if self.scales is None else self.scales.nbytes)


def _addresses(pages: Tensor) -> Tensor:
    return torch.tensor([page.data_ptr() for page in pages], dtype=torch.int64, device=pages.device)


def stored(spec: Spec, case: Case, batch: int, tokens: int, page: int) -> Stored:
    """Random codes and scales."""
    kind, dim, block = spec
    width = case.cached_heads * dim
    shape = (-(-tokens // page), batch, page)
    ring = None
    if case.ring and kind not in ("fp32", "fp16", "bf16"):
        ring = torch.randn(batch, case.ring, width, device="cuda", dtype=torch.float16)
    if kind in PLAIN:
        values = torch.randn(*shape, width, device="cuda", dtype=torch.float16).to(PLAIN[kind])
        return Stored(spec, case.cached_heads, values.view(torch.uint8) if kind == "fp8" else values, None, ring)
    blocks = -(-width // block)
    row = blocks * block // (1 if kind == "q8_0" else 2)
    codes = torch.randint(0, 256, (*shape, row), device="cuda", dtype=torch.uint8)
    scales = (torch.rand(*shape, blocks, device="cuda") + 0.5) * 2 / LARGEST[kind]
    return Stored(spec, case.cached_heads, codes, scales.half(), ring)


def truth(q: Tensor, keys: list[Stored], value: Stored, options: dict[str, Any]) -> Tensor:
    """(B, H, V) in float64."""
    rows = []
    for row in range(q.size(0)):
        repeats = q.size(1) // value.heads
        window = options["ring_from"], options["tokens"]
        k = torch.cat([key.values(row, *window, torch.float64) for key in keys], -1)  # (G, N, K)
        grouped = q[row].double().unflatten(0, (-1, repeats))  # (G, H / G, K)
        logits = options["scale"] * grouped @ k.transpose(1, 2)
        del k
        v = value.values(row, *window, torch.float64)
        if "null_k" in options:
            logits = torch.cat((options["scale"] * grouped @ options["null_k"].double()[:, :, None], logits), -1)
            v = torch.cat((options["null_v"].double()[:, None], v), 1)
        rows.append((logits.softmax(-1) @ v).flatten(0, 1))
    return torch.stack(rows)

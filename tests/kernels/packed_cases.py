"""Packed tensors made of random codes, what they mean in float64, and attention over them in float64.

Written from the formats' definitions alone: values are unpacked here with NumPy, code by code, by another road than
the kernels'. Slots that no one may read hold NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bottleneck_core.kernels import PackedTensor

NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
PLAIN = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
LARGEST = {"q8_0": 127, "q4_0": 8, "nf4": 1}


@dataclass(frozen=True)
class Case:
    """One call of decode. A tensor is (kind, head_dim, qblock)."""

    keys: tuple[tuple[str, int, int], ...]
    value: tuple[str, int, int]
    heads: int = 4
    cached_heads: int = 4
    batch: int = 1
    tokens: int = 37
    page: int = 32
    ring: int = 0
    ring_from: int | None = None  # none: where the window begins
    null: bool = False
    first: tuple[int, ...] | None = None
    passes: int = 2
    dtype: torch.dtype = torch.float16
    value_size: float = 1.0
    seed: int = 0

    def but(self, **changes: object) -> Case:
        return replace(self, **changes)  # type: ignore[arg-type]


def varied() -> dict[str, Case]:
    """Cases that between them touch every feature and head dim, for where each compiles for seconds."""
    cases = {}
    for dim in (2, 4, 6, 8, 12, 16, 18, 48, 64, 96, 128):
        cases[f"fp16 {dim}"] = Case(keys=(("fp16", dim, 0),), value=("fp16", dim, 0), tokens=300, page=128)
        cases[f"q4_0 {dim}"] = Case(keys=(("q4_0", dim, 8),), value=("q4_0", dim, 8), tokens=300, page=128, null=True)
    for kind in ("fp32", "bf16", "fp8", "q8_0", "nf4"):
        dtype = torch.float32 if kind == "fp32" else torch.float16
        cases[kind] = Case(keys=((kind, 16, 32),), value=(kind, 16, 32), tokens=300, page=128, dtype=dtype)
    decoupled = Case(
        (("q4_0", 4, 32), ("q8_0", 8, 32)), ("q4_0", 12, 32), 8, 8, batch=2, tokens=1000, page=128, null=True, ring=100
    )
    cases["decoupled"] = decoupled
    cases["decoupled, one pass"] = decoupled.but(passes=1)
    cases["decoupled, left padding"] = decoupled.but(first=(0, 700))
    cases["decoupled, late window"] = decoupled.but(ring_from=950)
    cases["decoupled, bf16 queries"] = decoupled.but(dtype=torch.bfloat16)
    cases["decoupled, one token"] = decoupled.but(tokens=1)
    cases["nf4, fp8 and fp16"] = decoupled.but(keys=(("nf4", 4, 32), ("fp8", 8, 0)), value=("fp16", 12, 0))
    cases["crossing blocks"] = decoupled.but(keys=(("q8_0", 12, 32),), value=("nf4", 12, 14))
    cases["grouped queries"] = Case(
        (("q8_0", 64, 32),), ("q4_0", 64, 32), heads=32, cached_heads=8, batch=2, tokens=1000, page=128, ring=64
    )
    cases["many blocks a head"] = cases["grouped queries"].but(keys=(("q4_0", 128, 8),), value=("q8_0", 128, 8))
    return cases


@dataclass
class Built:
    """Arguments of decode, and the float64 numbers they stand for."""

    q: Tensor
    keys: list[PackedTensor]
    value: PackedTensor
    options: dict
    k64: np.ndarray  # (B, N, G, K)
    v64: np.ndarray  # (B, N, G, V)
    alive: list[Tensor] = field(default_factory=list)  # pages, which the addresses do not keep


def unpack(kind: str, codes: np.ndarray, scales: np.ndarray | None, block: int, width: int) -> np.ndarray:
    """(..., row) stored bytes and (..., blocks) scales -> (..., width) float64."""
    assert scales is not None
    blocks = scales.shape[-1]
    codes = codes.reshape(*codes.shape[:-1], blocks, -1)
    out = np.zeros((*codes.shape[:-1], block))
    for i in range(block):
        if kind == "q8_0":
            out[..., i] = codes[..., i].view(np.int8)
        else:
            nibble = codes[..., i] & 15 if i < block // 2 else codes[..., i - block // 2] // 16
            out[..., i] = NF4[nibble] if kind == "nf4" else nibble.astype(np.float64) - 8
    out *= scales.astype(np.float64)[..., None]
    return out.reshape(*out.shape[:-2], -1)[..., :width]


def _tensor(
    rng: np.random.Generator, spec: tuple[str, int, int], case: Case, device: str, alive: list[Tensor], size: float
) -> tuple[PackedTensor, np.ndarray]:
    """One cached tensor with values of about `size`, and its values (B, N, G, D) as decode must see them."""
    kind, dim, block = spec
    width = case.cached_heads * dim
    pages = -(-case.tokens // case.page)
    slots = pages * case.page
    ring_from = case.tokens if case.ring == 0 else case.ring_from
    if ring_from is None:
        ring_from = max(0, case.tokens - case.ring)
    scales = None
    if kind in PLAIN:
        exact = torch.from_numpy(rng.standard_normal((case.batch, slots, width)) * size).to(PLAIN[kind])
        values = exact.double().numpy()
        stored = exact
        if kind == "fp8":
            stored = exact.view(torch.uint8).clone()
        stored[:, case.tokens :] = 0x7F if kind == "fp8" else float("nan")
    else:
        blocks = -(-width // block)
        row = blocks * block // (1 if kind == "q8_0" else 2)
        raw = rng.integers(0, 256, (case.batch, slots, row)).astype(np.uint8)
        if kind == "q8_0":
            raw[raw == 128] = 129  # -128 is not a code
        spread = size * 2.0 ** rng.integers(-4, 2, (case.batch, slots, blocks)) / LARGEST[kind]
        sign = rng.choice([-1.0, 1.0], spread.shape) if kind == "q4_0" else 1.0
        scale = (spread * sign * (rng.random(spread.shape) > 0.05)).astype(np.float16)
        values = unpack(kind, raw, scale, block, width)
        stored = torch.from_numpy(raw)
        scales = torch.from_numpy(scale)
        scales[:, case.tokens :] = float("nan")
    ring = None
    if case.ring and kind not in ("fp32", "fp16", "bf16"):
        window = torch.from_numpy(rng.standard_normal((case.batch, case.ring, width)) * size).half()
        for position in range(ring_from, case.tokens):
            values[:, position] = window[:, position % case.ring].double().numpy()
        unused = sorted(set(range(case.ring)) - {p % case.ring for p in range(ring_from, case.tokens)})
        window[:, unused] = float("nan")
        ring = window.to(device)

    def addresses(tensor: Tensor) -> Tensor:
        parts = [part.contiguous().to(device) for part in tensor.split(case.page, dim=1)]
        parts = [parts[i] for i in range(pages)]
        alive.extend(parts)
        return torch.tensor([part.data_ptr() for part in parts], dtype=torch.int64, device=device)

    packed = PackedTensor(
        kind, case.cached_heads, dim, block, addresses(stored), None if scales is None else addresses(scales), ring
    )
    return packed, values[:, : case.tokens].reshape(case.batch, case.tokens, case.cached_heads, dim)


def build(case: Case, device: str = "cpu") -> Built:
    """Random tensors of a case."""
    rng = np.random.default_rng(case.seed)
    alive: list[Tensor] = []
    keys, values = [], []
    for spec in case.keys:
        packed, exact = _tensor(rng, spec, case, device, alive, 1.0)
        keys.append(packed)
        values.append(exact)
    value, v64 = _tensor(rng, case.value, case, device, alive, case.value_size)
    k64 = np.concatenate(values, axis=-1)
    q = torch.from_numpy(rng.standard_normal((case.batch, case.heads, k64.shape[-1]))).to(case.dtype)
    ring_from = case.ring_from if case.ring_from is not None else max(0, case.tokens - case.ring)
    options: dict = {
        "tokens": case.tokens,
        "page": case.page,
        "ring_from": ring_from,
        "scale": 1.5 * k64.shape[-1] ** -0.5,
        "passes": case.passes,
    }
    if case.null:
        options["null_k"] = torch.from_numpy(rng.standard_normal((case.cached_heads, k64.shape[-1]))).to(case.dtype)
        options["null_v"] = torch.from_numpy(rng.standard_normal((case.cached_heads, v64.shape[-1]))).to(case.dtype)
    if case.first is not None:
        options["first"] = torch.tensor(case.first, dtype=torch.int32)
    options = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in options.items()}
    return Built(q.to(device), keys, value, options, k64, v64, alive)


def expected(built: Built) -> np.ndarray:
    """(B, H, V) attention in float64 over the unpacked values."""
    q = built.q.double().cpu().numpy()
    repeats = q.shape[1] // built.k64.shape[2]
    k, v = (np.repeat(x.transpose(0, 2, 1, 3), repeats, axis=1) for x in (built.k64, built.v64))  # (B, H, N, D)
    logits = built.options["scale"] * np.einsum("bhd,bhnd->bhn", q, k)
    first = built.options.get("first")
    if first is not None:
        hidden = np.arange(k.shape[2])[None, :] < first.cpu().numpy()[:, None]
        logits = np.where(hidden[:, None, :], -np.inf, logits)
    if "null_k" in built.options:
        null_k, null_v = (built.options[name].double().cpu().numpy() for name in ("null_k", "null_v"))
        null_k, null_v = (np.repeat(x, repeats, axis=0) for x in (null_k, null_v))  # (H, D)
        logits = np.concatenate((built.options["scale"] * np.einsum("bhd,hd->bh", q, null_k)[..., None], logits), -1)
        v = np.concatenate((np.broadcast_to(null_v[None, :, None], (*v.shape[:2], 1, v.shape[3])), v), axis=2)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhn,bhnd->bhd", weights, v)


@dataclass
class Fence:
    """The memory that kernels may touch; the interpreter's every access is checked against it, byte by byte.

    Wrap a kernel to admit what it is launched with; `admit` what it reaches through tables of addresses.
    """

    ranges: list[tuple[int, int]] = field(default_factory=list)
    accesses: int = 0

    def admit(self, *tensors: Tensor) -> None:
        self.ranges += [(t.data_ptr(), t.data_ptr() + t.untyped_storage().nbytes()) for t in tensors]

    def wrap(self, kernel: Any) -> Any:
        """A kernel whose launches admit their tensors."""
        fence = self

        class Fenced:
            def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
                return lambda *arguments, **options: fence._launch(kernel[grid], arguments, options)

        return Fenced()

    def _launch(self, launch: Callable[..., None], arguments: tuple, options: dict) -> None:
        self.admit(*(argument for argument in arguments if isinstance(argument, Tensor)))
        launch(*arguments, **options)

    def check(self, addresses: np.ndarray, mask: np.ndarray, size: int) -> None:
        """Raises AssertionError where an access of `size` bytes is outside."""
        addresses, mask = np.broadcast_arrays(addresses, mask)
        touched = addresses[mask.astype(bool)].astype(np.int64)
        begins, ends = np.array(sorted(set(self.ranges)), dtype=np.int64).T
        at = np.searchsorted(begins, touched, side="right") - 1
        outside = (at < 0) | (touched + size > ends[at])
        assert not outside.any(), f"{outside.sum()} of {touched.size} accesses of {size} bytes are out of bounds"
        self.accesses += touched.size

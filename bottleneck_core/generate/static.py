"""One decoding step without a host: everything that changes from token to token stands on the device, in one place.

A CUDA graph repeats launches with the addresses and arguments that they had. So the number of tokens is counted by the
device, pages are found through tables that are written in place when a page is added, and each drawn token lies where
the next step reads it. Launches are cut for `capacity` tokens; more need another graph.

Legend: B requests, N vocabulary, D rotary head dim, A address tables, P pages, S uniform numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bottleneck_core import kernels
from bottleneck_core.generate import fused
from bottleneck_core.generate.layer import Plan, inference_dtype, null_of, rotated
from bottleneck_core.generate.sampling import Sampler, Sampling, pick
from bottleneck_core.kernels.append import append
from bottleneck_core.kvcache import KVCache
from bottleneck_core.kvcache.tensor import NATIVE, Page
from bottleneck_core.model import GPT, Projected

SHARES = 256  # uniform numbers a request that are on the device at once


def unsupported(model: GPT, cache: KVCache, plan: Plan) -> str | None:
    """Why a step over this cache cannot be static, in words, or None where it can."""
    if plan.fused == "none":
        return "the plan asks for no fused kernel"
    if plan.fused == "auto" and cache.device.type != "cuda":
        return "fused decoding needs a CUDA device"
    heads = model.config.kv_heads
    *keys, _ = [tensor.width // heads for tensor in cache.layers[0].values()]
    q = torch.empty(cache.batch, model.config.n_head, sum(keys), dtype=inference_dtype(model), device=cache.device)
    refusals = (fused.unreadable(q, heads, cache, layer) for layer in range(len(cache.layers)))
    reason = next((refusal for refusal in refusals if refusal), None)
    if reason is None and cache.length < cache.residual:
        reason = "the window of newest tokens is still filling"
    return reason


class StaticCache:
    """A cache and the state of its decoding as static steps see them.

    `said` (B + 1,) int64: the ids drawn last, and 1 where a key or value could not be stored. `counts` (4,) int32:
    tokens with the next one, the first position that is read from the window, numbers used up, the next position.
    """

    def __init__(self, model: GPT, cache: KVCache, capacity: int) -> None:
        self.cache = cache
        self.capacity = -(-capacity // cache.page) * cache.page
        self.heads = model.config.kv_heads
        device = cache.device
        self._tensors = [tensor for layer in cache.layers for tensor in layer.values()]
        self._rings = [tensor.ring for tensor in self._tensors]
        rows = sum(1 + tensor.has_scales for tensor in self._tensors)
        pages = self.capacity // cache.page
        self.tables = torch.zeros(rows, -(-pages // 16) * 16, dtype=torch.int64, device=device)  # (A, P)
        table = iter(self.tables)
        self.layers = [
            [
                fused.described(tensor, self.heads, next(table), next(table) if tensor.has_scales else None)
                for tensor in layer.values()
            ]
            for layer in cache.layers
        ]
        self.said = torch.zeros(cache.batch + 1, dtype=torch.int64, device=device)
        self.shares = torch.zeros(SHARES, cache.batch, device=device)  # (S, B)
        self.first = cache.first
        self.counts = torch.zeros(4, dtype=torch.int32, device=device)
        self._running = torch.zeros_like(self.counts)  # as counts, but for positions whose window copy is lost
        self._floor = torch.zeros_like(self.counts)

    @property
    def drawn(self) -> Tensor:
        """The ids drawn last, (B,) int64."""
        return self.said[:-1]

    def fits(self, cache: KVCache) -> bool:
        """Whether these addresses are still the cache's, and one more token has room."""
        same = all(ring is tensor.ring for ring, tensor in zip(self._rings, self._tensors, strict=True))
        return cache is self.cache and same and cache.first is self.first and cache.length < self.capacity

    def begin(self, ids: Sequence[int]) -> None:
        """Go on from what the cache holds, with `ids` as the next tokens."""
        cache = self.cache
        length, residual = cache.length, cache.residual
        _upload([length + 1, length + 1 - residual, 0, length], self._running)
        _upload([0, cache.ring_from if residual else 0, 0, 0], self._floor)
        self._settle()
        _upload([*ids, 0], self.said)
        held = -(-length // cache.page)
        addresses = [line for tensor in self._tensors for line in _addresses(tensor.pages[:held], tensor.has_scales)]
        _upload(addresses, self.tables[:, :held])

    def prepare(self, position: int) -> None:
        """Have pages for a new token at `position`. Steps that are still at work on others are not disturbed."""
        changed = [tensor.reserve(position) for tensor in self._tensors]
        if any(changed):
            index = position // self.cache.page
            lines = [
                line
                for tensor in self._tensors
                for line in _addresses(tensor.pages[index : index + 1], tensor.has_scales)
            ]
            _upload(lines, self.tables[:, index : index + 1])
        if self.cache.residual:  # the window's oldest row makes room for the new one
            self.cache.ring_from = max(self.cache.ring_from, position + 1 - self.cache.residual)

    def refill(self, sampler: Sampler, in_flight: int) -> None:
        """Put numbers for the tokens after those in flight on the device, and count from the first of them."""
        _upload(sampler.shares(in_flight + SHARES)[in_flight:], self.shares)
        self._running[2:3].zero_()
        self.counts[2:3].zero_()

    def advance(self) -> None:
        """Count one more token, on the device."""
        self._running.add_(1)
        self._settle()

    def state(self) -> list[Tensor]:
        """Copies of what a step changes, its row of the cache left out: writing that again changes nothing."""
        return [part.clone() for part in (self._running, self.counts, self.said)]

    def restore(self, state: list[Tensor]) -> None:
        """Go back to `state`."""
        for part, old in zip((self._running, self.counts, self.said), state, strict=True):
            part.copy_(old)

    def _settle(self) -> None:
        torch.maximum(self._running, self._floor, out=self.counts)


def _upload(numbers: Tensor | list[Any], into: Tensor) -> None:
    """Write numbers of the host's, in the order of the device's other work and without waiting for it."""
    numbers = torch.as_tensor(numbers, dtype=into.dtype)
    into.copy_(numbers.pin_memory() if into.is_cuda else numbers, non_blocking=True)


def _addresses(pages: Sequence[Page], has_scales: bool) -> list[list[int]]:
    """Where the pages' codes begin, and where their scales do."""
    parts = [page.parts() for page in pages]
    return [[part[at].data_ptr() for part in parts] for at in range(1 + has_scales)]


class StaticLayer:
    """One layer of a `StaticCache`, in the model's terms (`model.attention.base.LayerCache`)."""

    def __init__(self, static: StaticCache, layer: int, plan: Plan) -> None:
        self.static = static
        self.tensors = static.layers[layer]
        self.native = any(tensor.kind == NATIVE for tensor in static.cache.layers[layer].values())
        self.plan = plan
        self.start: int | Tensor = 0  # the angles of the new tokens, once for all layers

    def attend(self, projected: Projected) -> Tensor:
        """Store the new keys and values, and return the attention of the new queries, (B, 1, H * V)."""
        static, cache = self.static, self.static.cache
        if cache.policy is not None and cache.policy.hadamard:
            projected = rotated(projected)
        *keys, values = self.tensors
        append(
            projected.k[:, :, 0],
            projected.v[:, :, 0],
            keys,
            values,
            counts=static.counts,
            page=cache.page,
            broken=static.said[-1:],
            checked=not self.native,
        )
        null_k, null_v = null_of(projected) or (None, None)
        out = kernels.decode(
            projected.q[:, :, 0],
            keys,
            values,
            tokens=static.capacity,
            page=cache.page,
            ring_from=static.capacity - max(tensor.shape.ring for tensor in self.tensors),
            scale=projected.scale,
            null_k=null_k,
            null_v=null_v,
            first=static.first,
            counts=static.counts,
            passes=1 if self.plan.fused == "triton1pass" else 2,
            tuning=self.plan.tuning,
        )  # (B, H, V)
        return out.flatten(1)[:, None].to(projected.q.dtype)


class StaticStep:
    """One token of every request: reads the ids drawn last, and draws the next ones in their place.

    Launches only; what it allocates is gone or overwritten when the next step begins. `plan` and `sampling` are fixed.
    """

    def __init__(self, model: GPT, static: StaticCache, plan: Plan, sampling: Sampling) -> None:
        self.model = model
        self.static = static
        self.sampling = sampling
        self.layers = [StaticLayer(static, layer, plan) for layer in range(len(static.layers))]
        self.rotary = model.rotary
        if self.rotary is not None:
            self.rotary.reserve(static.capacity)
            # A longer text of another engine makes a new table: this one has to live as long as the step does.
            self.table = (self.rotary.cos, self.rotary.sin)

    @torch.inference_mode()
    def __call__(self) -> None:
        static = self.static
        if self.rotary is not None:
            angles = self.rotary.angles(self._positions())
            for layer in self.layers:
                layer.start = angles
        logits = self.model.continue_from(self.layers, static.drawn[:, None], last_only=True)[:, -1]  # (B, N)
        share = static.shares.index_select(0, static.counts[2:3])[0] if self.sampling.temperature else None
        static.drawn.copy_(pick(logits, self.sampling, share))
        static.advance()

    def _positions(self) -> Tensor:
        position = self.static.counts[3:4]
        first = self.static.first
        return position if first is None else (position - first).clamp_min(0)  # (1,) or (B,)

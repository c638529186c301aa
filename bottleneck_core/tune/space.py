"""What the self-optimiser may choose from: cache policies that fit the memory budget, and decode plans.

The key tensors of a decoupled model have lists of kinds of their own. A model with a single key tensor tries both lists
together, `k_sem`'s first: its keys carry the content and, where they are rotated, the positions as well. Blocks and the
residual window are the same for all tensors of a candidate; layers at the edges and the rotation stay as the base
policy has them. A megabyte of the budget is 10^6 bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bottleneck_core.config import flag_of
from bottleneck_core.errors import UserError
from bottleneck_core.generate import Plan
from bottleneck_core.kernels import Tuning
from bottleneck_core.memory import FORMATS, PACKABLE, CachePolicy, cached_widths
from bottleneck_core.memory.kv import Cache
from bottleneck_core.memory.policy_text import policy_label
from bottleneck_core.tune.spelling import plan_name, policy_name, simplified

MEGABYTE = 10**6


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A policy and what it takes, in bytes, at the context and batch that are tuned for."""

    policy: CachePolicy
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A candidate that was not chosen: `reason` in two or three words, which counts go by, `detail` with numbers."""

    what: str
    reason: str
    detail: str


def policies(model: Any, settings: Any, base: CachePolicy) -> tuple[list[CachePolicy], list[Rejected]]:
    """All policies that the settings name, the base first, each way of storing once.

    Raises UserError for a list that names nothing, or a kind that no cache can store.
    """
    widths = cached_widths(model)
    kinds = [_kinds(settings, tensor) for tensor in widths]
    blocks, residuals = _numbers(settings, "self_opt_qblocks", 1), _numbers(settings, "self_opt_residuals", 0)
    found, rejected = [base], []
    seen = {_storage(model, base): policy_name(base, widths)}
    for *chosen, block, residual in itertools.product(*kinds, blocks, residuals):
        kinds_of = dict(zip(widths, chosen, strict=True))
        changed = replace(base, kinds=kinds_of, qblock=block, qblocks={}, residual=residual, layer_kinds={})
        policy = simplified(changed, widths)
        name = policy_label(policy)
        try:
            storage = _storage(model, policy)
        except ValueError as error:
            rejected.append(Rejected(what=name, reason="cannot be stored", detail=str(error)))
            continue
        if storage in seen:
            if seen[storage] != name:
                rejected.append(Rejected(what=name, reason="stored the same", detail=f"as {seen[storage]}"))
            continue
        seen[storage] = name
        found.append(policy)
    return found, rejected


def budget_bytes(model: Any, settings: Any, base: CachePolicy, context: int, batch: int, page: int) -> int:
    """The memory budget: `self_opt_mem_budget_mb`, else what the base policy takes plus the overhead share."""
    if settings.self_opt_mem_budget_mb is not None:
        return int(settings.self_opt_mem_budget_mb * MEGABYTE)
    taken = cache_bytes(model, base, context, batch, page)
    return int(taken * (1 + settings.self_opt_mem_overhead_frac))


def cache_bytes(model: Any, policy: CachePolicy, context: int, batch: int, page: int) -> int:
    """What a cache takes, in whole pages."""
    return Cache(model, policy, page).bytes(context, batch)


def within(
    model: Any, candidates: Iterable[CachePolicy], budget: int, context: int, batch: int, page: int
) -> tuple[list[Sized], list[Rejected]]:
    """The policies whose caches, in whole pages, fit the budget; nothing is allocated to find out."""
    kept, rejected = [], []
    for policy in candidates:
        size = cache_bytes(model, policy, context, batch, page)
        if size <= budget:
            kept.append(Sized(policy=policy, bytes=size))
        else:
            name = policy_name(policy, cached_widths(model))
            rejected.append(Rejected(what=name, reason="over the budget", detail=f"{size:,} B of {budget:,} B"))
    return kept, rejected


def decode_plans(settings: Any, base: Plan, prefix: int, cuda: bool) -> tuple[list[Plan], list[Rejected]]:
    """The base plan and its alternatives for `prefix` cached tokens.

    Where the base plan may use a fused kernel on CUDA, its tilings are tried, in one pass and in two unless the base
    names one; streaming is tried unless the base insists on a kernel.
    """
    blocks = _numbers(settings, "self_opt_decode_blocks", 1)
    fused = cuda and base.fused != "none"
    streaming = "none" if fused else base.fused
    candidates = [replace(base, block=block, fused=streaming, tuning=None) for block in blocks]
    if fused:
        passes = ("triton2pass", "triton1pass") if base.fused == "auto" else (base.fused,)
        candidates = candidates if base.fused == "auto" else []
        candidates += [replace(base, fused=kernel, tuning=tuning) for kernel in passes for tuning in _tunings(settings)]
    found, rejected = [base], []
    seen = {_reading(base, prefix): plan_name(base)}
    for plan in candidates:
        reading = _reading(plan, prefix)
        if reading in seen:
            if plan not in found:
                detail = f"as {seen[reading]} at {prefix:,} cached tokens"
                rejected.append(Rejected(what=plan_name(plan), reason="reads the same", detail=detail))
            continue
        seen[reading] = plan_name(plan)
        found.append(plan)
    return found, rejected


def _reading(plan: Plan, prefix: int) -> Any:
    """What tells plans apart: a block that holds the whole prefix reads it at once, however large it is."""
    return min(plan.block, prefix) if plan.tuning is None else None, plan.fused, plan.tuning


def _tunings(settings: Any) -> list[Tuning]:
    tiles = _numbers(settings, "self_opt_block_n", 16)
    for tile in tiles:
        if tile & (tile - 1):
            raise UserError(f"{flag_of('self_opt_block_n')} must name powers of two, got {tile}")
    warps, stages = _numbers(settings, "self_opt_warps", 1), _numbers(settings, "self_opt_stages", 1)
    return [Tuning(block_n=n, num_warps=w, num_stages=s) for n, w, s in itertools.product(tiles, warps, stages)]


def _kinds(settings: Any, tensor: str) -> list[str]:
    names = ["k_sem", "k_geo"] if tensor == "k" else [tensor]
    kinds = []
    for name in names:
        setting = f"self_opt_{name}_kinds"
        for kind in _listed(settings, setting):
            if kind not in PACKABLE:
                raise UserError(f"{flag_of(setting)} names {kind}: choose from {', '.join(PACKABLE)}")
            kinds.append(kind)
    return list(dict.fromkeys(kinds))


def _numbers(settings: Any, setting: str, least: int) -> list[int]:
    numbers = []
    for text in _listed(settings, setting):
        if not text.isdecimal() or int(text) < least:
            raise UserError(f"{flag_of(setting)} must list whole numbers >= {least}, got {text}")
        numbers.append(int(text))
    return list(dict.fromkeys(numbers))


def _listed(settings: Any, setting: str) -> Sequence[str]:
    items = [item.strip() for item in getattr(settings, setting).split(",") if item.strip()]
    if not items:
        raise UserError(f"{flag_of(setting)} is empty: list at least one value")
    return items


def _storage(model: Any, policy: CachePolicy) -> Any:
    """What tells caches apart: format, block and window of each tensor of each layer, and the rotation.

    Raises ValueError for a block that a format cannot have.
    """
    n_layer = model["n_layer"] if isinstance(model, dict) else model.n_layer
    stored = []
    for layer, (tensor, width) in itertools.product(range(n_layer), cached_widths(model).items()):
        format = FORMATS[policy.layer_kind(tensor, layer, n_layer)]
        block = format.block(width, policy.qblock_of(tensor))
        stored.append((format.name, block, policy.residual if format.quantised else 0))
    return tuple(stored), policy.hadamard

"""The questions the other way round: how long, how many, and how small, for a number of bytes.

All are exact searches over sizes that never shrink: the context and the batch found fit, one more does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bottleneck_core.memory.kv import Cache, KVMemory, check_sizes, kv_memory, layers_of
from bottleneck_core.memory.layers import StateKind, optional_setting
from bottleneck_core.memory.policy import CachePolicy

# Policies by expected loss of quality, least first: fewer bits a value lose more, at equal bits a finer scale loses
# less (q8_0 has one a block, fp8 none), and keys are more sensitive than values, so values lose bits first. q4_0 comes
# before nf4 because it leaves geometric keys at 8 bits; elsewhere the two take the same. That is an order, no
# measurement: `evaluate` measures.
QUALITY_ORDER: tuple[Mapping[str, str], ...] = (
    {"kv_cache": "fp16"},
    {"kv_cache": "q8_0"},
    {"kv_cache": "fp8"},
    {"kv_cache": "q8_0", "kv_cache_v": "q5_0"},
    {"kv_cache": "q8_0", "kv_cache_v": "q4_0"},
    {"kv_cache": "q5_0"},
    {"kv_cache": "q4_0"},
    {"kv_cache": "nf4"},
)
_KEPT = ("kv_residual", "kv_qblock", "kv_qblock_k", "kv_qblock_v", "kv_qblock_k_sem", "kv_qblock_k_geo")
_NO_END = 2**48  # tokens or requests: beyond it the size does not depend on them


@dataclass(frozen=True, kw_only=True)
class PolicyChoice:
    """The chosen settings, what they cost, their `rank` in the order of expected loss (0 least) and the rejected."""

    settings: dict[str, Any]
    rank: int
    memory: KVMemory
    rejected: tuple[tuple[dict[str, Any], int], ...]


def longest_context(
    model: Any,
    cache_bytes: int,
    batch: int = 1,
    policy: CachePolicy | Mapping[str, Any] | None = None,
    page: int = 1,
    total: str = "logical",
    state_kind: StateKind | None = None,
) -> int | None:
    """Most tokens a request whose cache fits `cache_bytes`; 0 where none fits, None where the length costs nothing."""
    check_sizes(batch=batch)
    cache = Cache(model, policy, page, state_kind)
    return _largest(lambda context: cache.total(total, context, batch) <= cache_bytes)


def largest_batch(
    model: Any,
    cache_bytes: int,
    context: int,
    policy: CachePolicy | Mapping[str, Any] | None = None,
    page: int = 1,
    total: str = "logical",
    state_kind: StateKind | None = None,
) -> int | None:
    """Most requests of `context` tokens whose caches fit `cache_bytes`; 0 where not one fits."""
    check_sizes(context=context)
    cache = Cache(model, policy, page, state_kind)
    return _largest(lambda batch: cache.total(total, context, batch) <= cache_bytes)


def cheapest_policy(
    model: Any,
    cache_bytes: int,
    context: int,
    batch: int = 1,
    candidates: Sequence[Mapping[str, Any]] = QUALITY_ORDER,
    page: int = 1,
    total: str = "logical",
    state_kind: StateKind | None = None,
) -> PolicyChoice:
    """The first of `candidates` (by default in the order of expected loss) whose cache fits.

    Block sizes and residual window are the model's own, unless a candidate has them; public models have no window.
    Raises ValueError where none fits, with the smallest of them.
    """
    check_sizes(context=context, batch=batch)
    kept = {"kv_residual": 0}
    if layers_of(model).page is not None:
        kept = {name: value for name in _KEPT if (value := optional_setting(model, name)) is not None}
    rejected: list[tuple[dict[str, Any], int]] = []
    for rank, candidate in enumerate(candidates):
        settings = {**kept, **candidate}
        size = Cache(model, settings, page, state_kind).total(total, context, batch)
        if size <= cache_bytes:
            memory = kv_memory(model, context, batch, settings, page, state_kind)
            return PolicyChoice(settings=settings, rank=rank, memory=memory, rejected=tuple(rejected))
        rejected.append((settings, size))
    smallest, size = min(rejected, key=lambda entry: entry[1])
    kinds = ", ".join(f"{name} {value}" for name, value in smallest.items())
    raise ValueError(
        f"no policy fits {cache_bytes:,} B at {context:,} tokens and batch {batch}: the smallest ({kinds}) takes "
        f"{size:,} B, so give fewer tokens, a smaller batch or more memory"
    )


def _largest(fits: Callable[[int], bool]) -> int | None:
    """The largest n with fits(n), for a question that once false stays false; 0 for none, None for no end."""
    if not fits(1):
        return 0
    if fits(_NO_END):
        return None
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low

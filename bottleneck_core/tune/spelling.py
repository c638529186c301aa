"""Policies and plans as people read them, and as the `kv_*` settings that ask for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from bottleneck_core.generate import Plan
from bottleneck_core.kernels import Tuning
from bottleneck_core.memory import FORMATS, CachePolicy
from bottleneck_core.memory.policy_text import policy_label

_DEFAULT = CachePolicy()


def policy_settings(policy: CachePolicy) -> dict[str, Any]:
    """The `kv_*` settings whose `CachePolicy.of` is this policy. Raises ValueError for kinds by single layers, which
    no setting names."""
    if policy.layer_kinds:
        raise ValueError("a policy with kinds by single layers has no settings")
    return {
        "kv_cache": policy.kind,
        **{f"kv_cache_{name}": kind for name, kind in policy.kinds.items()},
        "kv_qblock": policy.qblock,
        **{f"kv_qblock_{name}": block for name, block in policy.qblocks.items()},
        "kv_residual": policy.residual,
        "kv_first_layers": policy.first_layers,
        "kv_last_layers": policy.last_layers,
        "kv_edge_kind": policy.edge_kind,
        "kv_hadamard": policy.hadamard,
    }


def plan_settings(plan: Plan) -> dict[str, Any]:
    """A plan as plain values: two settings, and the kernel's tuning, which has none."""
    tuning = None if plan.tuning is None else asdict(plan.tuning)
    return {"kv_decode_block": plan.block, "kv_fused": plan.fused, "tuning": tuning}


def plan_of(settings: Mapping[str, Any]) -> Plan:
    """The plan that `plan_settings` has written."""
    tuning = settings.get("tuning")
    return Plan(
        block=settings["kv_decode_block"],
        fused=settings["kv_fused"],
        tuning=None if tuning is None else Tuning(**tuning),
    )


def simplified(policy: CachePolicy, tensors: Iterable[str]) -> CachePolicy:
    """The same policy for a model that caches `tensors`, said shortly: defaults for whatever has no effect."""
    kinds = {tensor: policy.kind_of(tensor) for tensor in tensors}
    blocks = {tensor: policy.qblock_of(tensor) for tensor in kinds}
    alone = replace(policy, kind=next(iter(kinds.values())), kinds={})
    if all(alone.kind_of(tensor) == kind for tensor, kind in kinds.items()):
        policy = alone
    else:
        policy = replace(policy, kind=_DEFAULT.kind, kinds=kinds)
    edge = [policy.edge_kind] if policy.first_layers or policy.last_layers else []
    single = [kind for of_layer in policy.layer_kinds.values() for kind in of_layer.values()]
    used = [FORMATS[kind] for kind in (*kinds.values(), *edge, *single)]
    if not any(format.meta_bytes for format in used):
        policy = replace(policy, qblock=_DEFAULT.qblock, qblocks={})
    elif len(set(blocks.values())) == 1:
        policy = replace(policy, qblock=next(iter(blocks.values())), qblocks={})
    if not any(format.quantised for format in used):
        policy = replace(policy, residual=_DEFAULT.residual)
    return policy if edge else replace(policy, edge_kind=_DEFAULT.edge_kind)


def policy_name(policy: CachePolicy, tensors: Iterable[str]) -> str:
    """The policy as `evaluate --policies` takes it, without what has no effect."""
    return policy_label(simplified(policy, tensors))


def plan_name(plan: Plan) -> str:
    """`streaming by 512`, or the fused kernel with its tuning; `auto` may be either."""
    if plan.tuning is not None:
        tuning = plan.tuning
        return f"{plan.fused}, tile {tuning.block_n}, {tuning.num_warps} warps, {tuning.num_stages} stages"
    return f"streaming by {plan.block:,}" if plan.fused == "none" else f"{plan.fused}, else streaming by {plan.block:,}"

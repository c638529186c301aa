"""The report of a tuning: one plain document, for `--json`, for the memo file, and for what people are told."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bottleneck_core.memory import CachePolicy
from bottleneck_core.tune.decide import Candidate, dominates, pareto
from bottleneck_core.tune.guard import CONFIDENCE, MARGIN, OTHER_WINDOWS, Guard, Quality
from bottleneck_core.tune.plans import FoundPlan
from bottleneck_core.tune.search import Found
from bottleneck_core.tune.spelling import plan_name, plan_settings, policy_name, policy_settings
from bottleneck_core.tune.task import Task


def report(
    task: Task, guard: Guard | None, policy: CachePolicy, policies: Found | None, plans: FoundPlan
) -> dict[str, Any]:
    """The whole story. `policies` is None where only plans were searched."""
    settings = task.settings
    refused = [*task.rejected, *(policies.rejected if policies else ()), *plans.rejected]
    return {
        "remembered": False,
        **task.machine,
        "context": task.context,
        "batch": task.batch,
        "prefix": task.prefix,
        "page": task.page,
        "scope": settings.self_opt_scope,
        "budget_bytes": task.budget,
        "guarded": task.guarded,
        "guard": None if guard is None else guard_row(guard, settings.self_opt_quality_tol),
        "verified": task.verified,
        "verify_tolerance": settings.self_opt_verify_tol if task.verified else None,
        "base": {
            "policy": policy_name(task.base, task.tensors),
            "plan": plan_name(task.base_plan),
            "bytes": task.bytes(task.base),
        },
        "chosen": {
            "policy": policy_name(policy, task.tensors),
            "settings": policy_settings(policy),
            "plan": plans.chosen.name,
            "plan_settings": plan_settings(plans.chosen.value),
            "bytes": task.bytes(policy),
            "ms_per_token": plans.chosen.seconds * 1e3,
            "quality": None if policies is None else quality_row(policies.chosen.quality),
        },
        "runner_up": None if plans.runner_up is None else plan_row(plans.runner_up),
        "why": {"policy": "not searched" if policies is None else policies.why, "plan": plans.why},
        "candidates": task.candidates,
        "probes": 0 if policies is None else policies.probes,
        "policies": [] if policies is None else policy_rows(policies.measured, policies.chosen),
        "plans": [plan_row(each) for each in plans.measured],
        "rejected": [asdict(each) for each in refused],
        "rejected_counts": dict(Counter(each.reason for each in refused)),
    }


def guard_row(guard: Guard, tolerance: float) -> dict[str, Any]:
    return {
        "tolerance": tolerance,
        "prefix": guard.prefix,
        "scored": guard.scored,
        "windows": len(guard.windows),
        "other_windows": OTHER_WINDOWS,
        "confidence": CONFIDENCE,
        "margin": MARGIN,
    }


def policy_rows(measured: Sequence[Candidate], chosen: Candidate) -> list[dict[str, Any]]:
    """The policies that were measured, smallest first: in the Pareto set or not, and why not chosen."""
    front = {each.name for each in pareto(measured)}
    return [
        policy_row(each, each.name in front, None if each.name == chosen.name else _why_not(each, chosen, measured))
        for each in sorted(measured, key=lambda each: (each.bytes, each.seconds))
    ]


def policy_row(each: Candidate, in_front: bool = True, why_not: str | None = None) -> dict[str, Any]:
    policy: CachePolicy = each.value.policy
    return {
        "policy": each.name,
        "settings": policy_settings(policy),
        "bytes": each.bytes,
        "ms_per_token": each.seconds * 1e3,
        "quality": quality_row(each.quality),
        "pareto": in_front,
        "why_not": why_not,
    }


def plan_row(each: Candidate) -> dict[str, Any]:
    return {"plan": each.name, "settings": plan_settings(each.value), "ms_per_token": each.seconds * 1e3}


def quality_row(quality: Quality | None) -> dict[str, Any] | None:
    """A quality as plain numbers; an infinite one, of undefined logits, is null."""
    if quality is None:
        return None
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(quality).items()
    }


def _why_not(each: Candidate, chosen: Candidate, measured: Sequence[Candidate]) -> str:
    better = next((other for other in measured if dominates(other, each)), None)
    if better is not None:
        return f"{better.name} is nowhere worse"
    time, size = each.seconds / chosen.seconds - 1, each.bytes / chosen.bytes - 1
    parts = [
        f"{abs(time):.1%} {'slower' if time > 0 else 'faster'}",
        f"{abs(size):.1%} {'larger' if size > 0 else 'smaller'}",
    ]
    return " and ".join(parts) + " than the chosen"

"""`choose`: the cache policy and the decode plan for a model on this device, under a memory budget.

The policy is searched first, with the base plan, and then the plan for that policy; pairs are not searched together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bottleneck_core.errors import UserError
from bottleneck_core.generate import Plan
from bottleneck_core.memory import CachePolicy
from bottleneck_core.model import GPT
from bottleneck_core.tune.decide import Rules
from bottleneck_core.tune.device import DeviceMeasure
from bottleneck_core.tune.guard import Guard, Quality
from bottleneck_core.tune.memo import Memo
from bottleneck_core.tune.plans import FoundPlan, search_plans
from bottleneck_core.tune.race import Unrunnable
from bottleneck_core.tune.report import report
from bottleneck_core.tune.search import Found, PolicySearch
from bottleneck_core.tune.spelling import plan_of
from bottleneck_core.tune.task import Task
from bottleneck_core.tune.timing import DecodeTimer

Notify = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to decode with. `runner_up` is the next fastest plan, for `Online`; `report` is the whole story, in plain
    values: strict JSON."""

    policy: CachePolicy
    plan: Plan
    runner_up: Plan | None
    report: dict[str, Any]

    @property
    def plans(self) -> list[Plan]:
        """The plan and its runner-up, as `Online` takes them."""
        return [self.plan] if self.runner_up is None else [self.plan, self.runner_up]

    @classmethod
    def of(cls, report: dict[str, Any]) -> Choice:
        """The choice that a report tells of. Raises KeyError, TypeError or ValueError where it is damaged."""
        chosen, runner_up = report["chosen"], report["runner_up"]
        return cls(
            policy=CachePolicy.of(chosen["settings"]),
            plan=plan_of(chosen["plan_settings"]),
            runner_up=None if runner_up is None else plan_of(runner_up["settings"]),
            report=report,
        )


def choose(
    model: GPT,
    settings: Any,
    *,
    prompt_tokens: int | None = None,
    calibration: Any = None,
    context: int | None = None,
    batch: int = 1,
    notify: Notify = lambda _: None,
    progress: Notify = lambda _: None,
) -> Choice:
    """The policy and plan that `settings` (with the `kv_*` and `self_opt_*` names of a RunConfig) lead to.

    `prompt_tokens`: length of the prompt. `context`, `batch` and what is derived from them: see `Task`. `calibration`:
    token ids (N,) for the guard, needed where `self_opt_policy_quality` is set and policies are searched. `notify` gets
    what a user should read, one line at a time (with `self_opt_verbose` every measurement), `progress` every
    measurement otherwise. With `self_opt_cache` a choice is looked up there first, and stored where every part of it
    was checked. Raises UserError where nothing may be chosen, and for settings that make no sense.
    """
    task = Task(model, settings, prompt_tokens, context, batch)
    guard = task.guard(calibration)
    memo = Memo(settings.self_opt_cache) if settings.self_opt_cache else None
    key = task.key(calibration) if memo else {}
    choice = _recalled(memo, key) if memo else None
    if choice is None:
        choice = _search(task, guard, notify if settings.self_opt_verbose else progress)
        if memo and task.checked:
            memo.store(key, choice.report)
        elif memo:
            notify("not remembered, since not all was checked: add --self-opt-policy-quality and --self-opt-verify")
    for warning in dict.fromkeys(memo.warnings if memo else ()):
        notify(f"warning: {warning}")
    return choice


def recheck(model: GPT, choice: Choice, tokens: Any) -> Quality:
    """What the guard that chose a policy says of it on another text (N,): the tolerance is met where `largest` is not
    beyond it. Raises UserError for a choice that was not guarded, and for a text that is too short."""
    guard = choice.report["guard"]
    if guard is None:
        raise UserError("the choice was not guarded, so there is no tolerance to check: add --self-opt-policy-quality")
    page = choice.report["page"]
    again = Guard(model, tokens, prefix=guard["prefix"], scored=guard["scored"], page=page, plan=choice.plan)
    return again.measure(choice.policy, "all")


def _recalled(memo: Memo, key: dict[str, Any]) -> Choice | None:
    found = memo.recall(key)
    if found is None:
        return None
    try:
        return Choice.of(found | {"remembered": True})
    except (KeyError, TypeError, ValueError):
        memo.warnings.append(f"an entry of {memo.path} is damaged and was left out")
        return None


def _search(task: Task, guard: Guard | None, say: Notify) -> Choice:
    settings = task.settings
    measure = DeviceMeasure(
        DecodeTimer(task.model, prefix=task.prefix, batch=task.batch, page=task.page),
        guard,
        task.base_plan,
        warmup=settings.self_opt_policy_warmup,
        runs=settings.self_opt_policy_iters,
    )
    policies = _search_policies(task, measure, say) if task.searches_policies else None
    policy = task.base if policies is None else policies.chosen.value.policy
    plans = _search_plans(task, policy, measure, say)
    return Choice.of(report(task, guard, policy, policies, plans))


def _search_policies(task: Task, measure: DeviceMeasure, say: Notify) -> Found:
    settings = task.settings
    search = PolicySearch(
        task.sized,
        task.sized_base,
        measure,
        tensors=task.tensors,
        tolerance=settings.self_opt_quality_tol if task.guarded else None,
        rules=Rules(hysteresis=settings.self_opt_policy_hysteresis, as_fast=settings.self_opt_prefer_low_mem_within),
        say=say,
    )
    return search.run()


def _search_plans(task: Task, policy: CachePolicy, measure: DeviceMeasure, say: Notify) -> FoundPlan:
    """The plan for `policy`; the base plan is timed also where it is the only one."""
    settings = task.settings
    try:
        return search_plans(
            task.plans,
            lambda plan: measure.timing(policy, plan, warmup=settings.self_opt_warmup, runs=settings.self_opt_iters),
            hysteresis=settings.self_opt_hysteresis,
            tolerance=settings.self_opt_verify_tol if task.verified else None,
            say=say,
        )
    except Unrunnable as error:
        raise UserError(f"the cache cannot be decoded on this device ({error}): tune for fewer tokens") from None

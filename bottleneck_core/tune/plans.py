"""The search for a decode plan under a policy: all plans are run, compared with the base plan, and raced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bottleneck_core.generate import Plan
from bottleneck_core.tune.decide import Candidate, Rules, decide
from bottleneck_core.tune.race import Unrunnable, race
from bottleneck_core.tune.space import Rejected
from bottleneck_core.tune.spelling import plan_name
from bottleneck_core.tune.timing import Timing


@dataclass(frozen=True, kw_only=True)
class FoundPlan:
    """The chosen plan and `why`; `measured` are all that may be used, fastest first."""

    chosen: Candidate
    why: str
    measured: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]

    @property
    def runner_up(self) -> Candidate | None:
        """The fastest of those that were not chosen."""
        return next((each for each in self.measured if each.name != self.chosen.name), None)


def search_plans(
    plans: Sequence[Plan],
    time: Callable[[Plan], Timing],
    *,
    hysteresis: float,
    tolerance: float | None,
    say: Callable[[str], None] = lambda _: None,
) -> FoundPlan:
    """The fastest of `plans`, the first of which is the base.

    `time` measures a plan, or raises Unrunnable. `tolerance`: largest absolute difference of a logit to the base's;
    None: the outputs are not compared. Raises Unrunnable where the base itself cannot run.
    """
    base = plans[0]
    reference = time(base)
    usable: dict[str, Plan] = {plan_name(base): base}
    rejected = []
    for plan in plans[1:]:
        name = plan_name(plan)
        say(f"trying {name}")
        try:
            timing = time(plan)
        except Unrunnable as error:
            rejected.append(Rejected(what=name, reason="cannot run", detail=str(error)))
            continue
        difference = float((timing.logits - reference.logits).abs().max())
        if tolerance is None or difference <= tolerance:  # an undefined difference is not
            usable[name] = plan
        else:
            detail = f"logits differ from the base plan's by {difference:.3g} of {tolerance:g}"
            rejected.append(Rejected(what=name, reason="verification", detail=detail))
    times, failed = race({name: lambda plan=plan: time(plan).seconds for name, plan in usable.items()}, plan_name(base))
    rejected += [Rejected(what=name, reason="cannot run", detail=reason) for name, reason in failed.items()]
    candidates = [Candidate(value=usable[name], name=name, bytes=0, seconds=s) for name, s in times.items()]
    for each in candidates:
        say(f"{each.name}: {each.seconds * 1e3:.3f} ms a token")
    by_name = {each.name: each for each in candidates}
    chosen, why = decide(candidates, by_name.get(plan_name(base)), Rules(hysteresis=hysteresis))
    ordered = tuple(sorted(candidates, key=lambda each: each.seconds))
    return FoundPlan(chosen=chosen, why=why, measured=ordered, rejected=tuple(rejected))

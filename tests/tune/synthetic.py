"""Candidates and measurements made up, so that the rules can be tested without a model."""

from __future__ import annotations

from collections.abc import Callable

from bottleneck_core.config import RunConfig
from bottleneck_core.memory import CachePolicy
from bottleneck_core.tune.guard import Part, Quality
from bottleneck_core.tune.race import Unrunnable
from bottleneck_core.tune.space import Sized, policies, within
from bottleneck_core.tune.spelling import policy_name

COST = {"fp16": 1.0, "q8_0": 1.3, "q4_0": 1.5, "nf4": 1.9}
LOSS = {"fp16": 0.0, "q8_0": 0.05, "q4_0": 0.4, "nf4": 0.3}


def quality(largest: float, windows: int = 8) -> Quality:
    return Quality(
        windows=windows,
        scored=8 * windows,
        largest=largest,
        expected_worst=largest,
        mean_kl=largest / 10,
        delta_nll=0.0,
        same_top1=1.0,
    )


class FakeMeasure:
    """Time and loss from the kinds of a policy; `worse` makes its loss on all windows larger, `broken` cannot run."""

    def __init__(
        self,
        tensors: list[str],
        worse: Callable[[str], float] = lambda _: 1.0,
        broken: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.tensors = tensors
        self.worse = worse
        self.broken = broken
        self.timed: list[str] = []
        self.looked: list[tuple[str, Part]] = []

    def seconds(self, policy: CachePolicy) -> list[float]:
        name = policy_name(policy, self.tensors)
        self.timed.append(name)
        if self.broken(name):
            raise Unrunnable("out of memory")
        return [sum(COST[policy.kind_of(tensor)] for tensor in self.tensors) + policy.residual / 1000]

    def quality(self, policy: CachePolicy, part: Part) -> Quality:
        name = policy_name(policy, self.tensors)
        self.looked.append((name, part))
        return quality(loss(policy, self.tensors) * (self.worse(name) if part == "all" else 1.0))


def loss(policy: CachePolicy, tensors: list[str]) -> float:
    blocks = {16: 0.8, 32: 1.0, 64: 1.3}[policy.qblock]
    return sum(LOSS[policy.kind_of(tensor)] for tensor in tensors) * blocks / (1 + policy.residual / 64)


def space(config: RunConfig, budget_share: float = 1.1, context: int = 4096) -> tuple[list[Sized], Sized | None]:
    """The policies within a share of the fp16 cache, and the base where it is one of them."""
    base = CachePolicy()
    found, _ = policies(config, config, base)
    fp16 = within(config, [base], 2**62, context, 1, 256)[0][0].bytes
    sized, _ = within(config, found, int(fp16 * budget_share), context, 1, 256)
    return sized, next((each for each in sized if each.policy == base), None)

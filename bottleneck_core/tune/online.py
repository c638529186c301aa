"""Online tuning: while text is decoded, two decode plans are compared now and then, and the faster one goes on.

Plans only: they give the same numbers, so every probed token is a token of the text and nothing is decoded twice.
Another cache policy would need what is cached to be stored anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median
from typing import TypeVar

from bottleneck_core.generate import Engine, Plan
from bottleneck_core.tune.spelling import plan_name

T = TypeVar("T")
PROBE_STEPS = 8  # timed steps a plan; the plans take turns, so that a growing cache burdens both alike
_PROBE = 2 * (PROBE_STEPS + 1)  # the first step of each plan is not timed: it may have something to prepare


class Online:
    """Watches the decoding of `engine`, which uses the first of `plans`, and switches between them.

    After every `interval` steps a probe lets the plan in use and the next other one take turns; the other one is taken
    where its median step is faster by the share `hysteresis`. `clock` gives seconds; `switches` tells at which step
    which plan was taken.
    """

    def __init__(
        self,
        engine: Engine,
        plans: Sequence[Plan],
        *,
        interval: int = 256,
        hysteresis: float = 0.03,
        clock: Callable[[], float] = time.perf_counter,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        if interval < 1 or not plans:
            raise ValueError(f"online tuning needs an interval of at least 1 and plans, got {interval}, {len(plans)}")
        self.engine = engine
        self.plan = plans[0]
        self.others = list(plans[1:])
        self.interval = interval
        self.hysteresis = hysteresis
        self.clock = clock
        self.notify = notify
        self.steps = 0
        self.switches: list[tuple[int, Plan]] = []
        self._times: dict[Plan, list[float]] = {}

    def watch(self, steps: Iterable[T]) -> Iterator[T]:
        """The items of `steps`, each of which decodes one token when it is asked for (as `Engine.generate`'s do).

        The first one, which reads the prompt, does not count. What the caller does between two items is not timed.
        """
        source = iter(steps)
        for first in source:
            yield first
            break
        while True:
            plan = self._next_plan()
            self.engine.use(plan)
            began = self.clock()
            try:
                item = next(source)
            except StopIteration:
                self.engine.use(self.plan)
                return
            self._record(plan, self.clock() - began)
            yield item

    @property
    def _probing(self) -> bool:
        return bool(self.others) and self.steps % (self.interval + _PROBE) >= self.interval

    def _next_plan(self) -> Plan:
        if not self._probing:
            return self.plan
        taken = sum(map(len, self._times.values()))
        return self.plan if taken % 2 == 0 else self.others[0]

    def _record(self, plan: Plan, seconds: float) -> None:
        probed = self._probing
        self.steps += 1
        if not probed:
            return
        self._times.setdefault(plan, []).append(seconds)
        if sum(map(len, self._times.values())) == _PROBE:
            self._settle()

    def _settle(self) -> None:
        other = self.others.pop(0)
        mine, theirs = (median(self._times[plan][1:]) for plan in (self.plan, other))
        self._times = {}
        if theirs < mine * (1 - self.hysteresis):
            self.notify(f"step {self.steps:,}: {plan_name(other)} is faster by {1 - theirs / mine:.1%} and is taken")
            self.plan, other = other, self.plan
            self.switches.append((self.steps, self.plan))
        self.others.append(other)  # the next probe is another's turn

"""Online tuning with a clock that is told how fast each plan is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from bottleneck_core.generate import Engine, Plan, Sampling
from bottleneck_core.tune.online import PROBE_STEPS, Online
from tests.model.tiny_models import scrambled, tiny

SLOW, FAST, OTHER = Plan(block=3), Plan(block=5), Plan(block=7)
INTERVAL = 10
CYCLE = INTERVAL + 2 * (PROBE_STEPS + 1)


class Clock:
    """Each step of decoding takes what the engine's plan costs at that moment."""

    def __init__(self, engine: Engine, costs: dict[Plan, float]) -> None:
        self.engine = engine
        self.costs = costs
        self.now = 0.0
        self.used: list[Plan] = []

    def __call__(self) -> float:
        return self.now

    def steps(self, count: int) -> Iterator[int]:
        for step in range(count):
            plan = self.engine.plan
            assert all(layer.plan is plan for layer in self.engine.layers)
            self.used.append(plan)
            self.now += self.costs[plan]
            yield step


def engine() -> Engine:
    return Engine(scrambled(tiny("standard", block_size=256), dtype=torch.float32), plan=SLOW)


def watched(costs: dict[Plan, float], steps: int, plans: list[Plan], hysteresis: float = 0.03) -> tuple[Online, Clock]:
    target = engine()
    clock = Clock(target, costs)
    online = Online(target, plans, interval=INTERVAL, hysteresis=hysteresis, clock=clock)
    assert list(online.watch(clock.steps(steps))) == list(range(steps))
    return online, clock


def test_the_faster_plan_is_taken_after_a_probe_in_turns() -> None:
    online, clock = watched({SLOW: 2.0, FAST: 1.0}, 1 + 2 * CYCLE, [SLOW, FAST])
    assert online.switches[0] == (CYCLE, FAST)
    assert len(online.switches) == 1 and online.engine.plan == FAST
    decoding = clock.used[1:]  # the first step reads the prompt
    assert decoding[:INTERVAL] == [SLOW] * INTERVAL
    assert decoding[INTERVAL:CYCLE] == [SLOW, FAST] * (PROBE_STEPS + 1)
    assert decoding[CYCLE : CYCLE + INTERVAL] == [FAST] * INTERVAL


def test_a_gain_within_the_hysteresis_changes_nothing() -> None:
    online, _ = watched({SLOW: 1.0, FAST: 0.98}, 3 * CYCLE, [SLOW, FAST])
    assert not online.switches and online.engine.plan == SLOW
    online, _ = watched({SLOW: 1.0, FAST: 0.98}, 3 * CYCLE, [SLOW, FAST], hysteresis=0.01)
    assert [plan for _, plan in online.switches] == [FAST]


def test_it_goes_back_when_times_change() -> None:
    target = engine()
    clock = Clock(target, {SLOW: 2.0, FAST: 1.0})
    online = Online(target, [SLOW, FAST], interval=INTERVAL, clock=clock)
    for step in online.watch(clock.steps(1 + 2 * CYCLE)):
        if step == CYCLE + 3:
            clock.costs[FAST] = 9.0
    assert [plan for _, plan in online.switches] == [FAST, SLOW]


def test_other_plans_take_turns_at_the_probes() -> None:
    online, clock = watched({SLOW: 3.0, OTHER: 2.9, FAST: 1.0}, 1 + 2 * CYCLE, [SLOW, OTHER, FAST], hysteresis=0.5)
    assert [plan for _, plan in online.switches] == [FAST]
    assert clock.used.count(OTHER) == PROBE_STEPS + 1


def test_one_plan_is_never_probed_and_an_early_end_leaves_the_plan_in_use() -> None:
    online, clock = watched({SLOW: 1.0}, 2 * CYCLE, [SLOW])
    assert set(clock.used) == {SLOW} and not online.switches
    online, _ = watched({SLOW: 1.0, FAST: 0.1}, 1 + INTERVAL + 2, [SLOW, FAST])
    assert online.engine.plan == SLOW
    with pytest.raises(ValueError):
        Online(engine(), [SLOW], interval=0)


def test_the_text_does_not_change_with_the_plans() -> None:
    model = scrambled(tiny("decoupled", block_size=256), dtype=torch.float32)
    plans = [Plan(block=4), replace(Plan(), block=9)]

    def text(online: bool) -> list[list[int | None]]:
        target = Engine(model, plan=plans[0])
        steps = target.generate([[1, 2, 3]], 60, sampling=Sampling(temperature=0))
        watcher = Online(target, plans, interval=4, hysteresis=0.0)
        return list(watcher.watch(steps) if online else steps)

    assert text(online=True) == text(online=False)

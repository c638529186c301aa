"""What is worth a second look in attention metrics, in words: heads that collapsed, sank, or became alike.

A rule is broken where a metric passes its level. Alarms are of one probe; "since" is the first probe of the unbroken
stretch of broken ones that leads to it. Values that were not measured break nothing and interrupt nothing. Step 0 is
the untrained model, whose heads are alike and whose attention is uniform: it raises no alarm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import numbers


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`metric` (one of METRICS, per head or per layer) below or above `level`, in the metric's `unit`."""

    metric: str
    name: str
    words: str
    below: bool
    level: float
    unit: str
    meaning: str

    @property
    def condition(self) -> str:
        """`entropy below 0.1 nats`."""
        limit = f"{self.level:g} {self.unit}".strip()
        return f"{self.words} {'below' if self.below else 'above'} {limit}"

    def broken(self, values: NDArray) -> NDArray[np.bool_]:
        """Where `values` pass the level; never where they are NaN."""
        return values < self.level if self.below else values > self.level


RULES = (
    Rule(
        metric="entropy",
        name="entropy collapse",
        words="entropy",
        below=True,
        level=0.1,
        unit="nats",
        meaning="Each query attends to one key: exp(0.1) = 1.1 keys.",
    ),
    Rule(
        metric="sink_mass",
        name="attention sink",
        words="sink mass",
        below=False,
        level=0.5,
        unit="",
        meaning="More than half of the weight is on the first token.",
    ),
    Rule(
        metric="null_mass",
        name="idle head",
        words="null mass",
        below=False,
        level=0.9,
        unit="",
        meaning="The head attends to nothing but the null key.",
    ),
    Rule(
        metric="erank",
        name="rank collapse",
        words="effective rank",
        below=True,
        level=2.0,
        unit="dimensions",
        meaning="All queries mix the values in nearly the same way; only heads with a stored spectrum are watched.",
    ),
    Rule(
        metric="redundancy",
        name="identical heads",
        words="redundancy",
        below=False,
        level=0.95,
        unit="",
        meaning="The attention maps of the layer's heads have a mean cosine similarity above 0.95.",
    ),
)
"""All thresholds, in the order in which alarms are listed."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A broken rule: of one head, or of a layer where `head` is None, with its value now and since which step."""

    rule: Rule
    layer: int
    head: int | None
    value: float
    since: int

    @property
    def sentence(self) -> str:
        """`layer 0 head 3: entropy below 0.1 nats since step 1,200`."""
        place = f"layer {self.layer}" if self.head is None else f"layer {self.layer} head {self.head}"
        return f"{place}: {self.rule.condition} since step {numbers.steps(self.since)}"


def alarms_at(steps: NDArray, values: Mapping[str, NDArray], probe: int) -> list[Alarm]:
    """Alarms of the probe with index `probe`, by rule, the longest lasting first.

    `steps` (S,), `values` by metric: (S, layer, head), or (S, layer) for metrics of layers; others are ignored.
    """
    trained = np.asarray(steps[: probe + 1]) > 0
    found: list[Alarm] = []
    for rule in RULES:
        if rule.metric not in values or not trained.any():
            continue
        past = values[rule.metric][: probe + 1][trained]
        past_steps = steps[: probe + 1][trained]
        known = np.isfinite(past)
        fine = known & ~rule.broken(past)
        # The last probe that was fine, -1 where none was; the stretch starts at the first known one after it.
        last_fine = np.where(fine.any(axis=0), len(past) - 1 - np.argmax(fine[::-1], axis=0), -1)
        of_rule = []
        for cell in np.argwhere(rule.broken(past[-1])):
            place = tuple(int(i) for i in cell)
            first = int(last_fine[place]) + 1
            first += int(np.argmax(known[(slice(first, None), *place)]))
            of_rule.append(
                Alarm(
                    rule=rule,
                    layer=place[0],
                    head=place[1] if len(place) > 1 else None,
                    value=float(past[(-1, *place)]),
                    since=int(past_steps[first]),
                )
            )
        found += sorted(of_rule, key=lambda alarm: alarm.since)
    return found

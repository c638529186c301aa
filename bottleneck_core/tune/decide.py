"""Which of the measured candidates to take: pure rules, no measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bottleneck_core.figures.numbers import size
from bottleneck_core.tune.guard import Quality


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something that was measured: a policy or a decode plan (`value`), with its name.

    `bytes` of cache, median `seconds` a decoded token, `loss`: the largest logit difference, 0 where nobody looked.
    """

    value: Any = field(compare=False)
    name: str
    bytes: int
    seconds: float
    loss: float = 0.0
    quality: Quality | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """`hysteresis`: the base is left for what is faster by more than this share, or smaller and as fast.
    `as_fast`: times within this share count as the same, and then the smaller cache is preferred."""

    hysteresis: float
    as_fast: float = 0.0


def decide(candidates: Sequence[Candidate], base: Candidate | None, rules: Rules) -> tuple[Candidate, str]:
    """The choice among admissible candidates and why, in one sentence. `base` is None where it is not admissible.

    The smallest of those as fast as the fastest one, where it is faster than the base by more than the hysteresis;
    else the smallest of those that are smaller than the base and as fast as it; else the base. So no candidate that
    needs no more memory than the choice is faster by more than the hysteresis, and none that is as fast as a base that
    stays is smaller. Raises ValueError without candidates.
    """
    if not candidates:
        raise ValueError("there is nothing to choose from")
    fastest = min(candidates, key=lambda each: (each.seconds, each.bytes))
    level = [each for each in candidates if each.seconds <= fastest.seconds * (1 + rules.as_fast)]
    best = min(level, key=lambda each: (each.bytes, each.seconds))
    if base is None:
        return best, f"{_why(best, fastest, rules)}; the base is not admissible"
    if best == base:
        return base, f"the base: {_why(base, fastest, rules)}"
    if best.seconds < base.seconds * (1 - rules.hysteresis):
        return best, f"{_why(best, fastest, rules)}; {_than_base(best, base)}"
    smaller = [
        each for each in candidates if each.bytes < base.bytes and each.seconds <= base.seconds * (1 + rules.as_fast)
    ]
    if smaller:
        best = min(smaller, key=lambda each: (each.bytes, each.seconds))
        return best, f"the smallest of those within {rules.as_fast:.1%} of the base's time; {_than_base(best, base)}"
    gain = 1 - best.seconds / base.seconds
    return base, f"the base: {best.name} is faster by {gain:.1%} only, a move needs {rules.hysteresis:.1%}"


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats in one of bytes, time and quality without losing in another, smallest first."""
    kept = [each for each in candidates if not any(dominates(other, each) for other in candidates)]
    return sorted(kept, key=lambda each: (each.bytes, each.seconds, each.loss))


def dominates(one: Candidate, other: Candidate) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better."""
    first, second = (one.bytes, one.seconds, one.loss), (other.bytes, other.seconds, other.loss)
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def _why(best: Candidate, fastest: Candidate, rules: Rules) -> str:
    if best == fastest:
        return "the fastest of the admissible"
    return f"the smallest of those within {rules.as_fast:.1%} of the fastest ({fastest.name})"


def _than_base(best: Candidate, base: Candidate) -> str:
    change = 1 - best.seconds / base.seconds
    speed = f"{abs(change):.1%} {'less' if change >= 0 else 'more'} time than the base"
    if best.bytes == base.bytes:
        return speed
    return f"{speed} and {size(best.bytes)} instead of {size(base.bytes)}"

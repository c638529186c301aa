"""The search for a cache policy: what is measured, in which order, and what becomes of each candidate.

Up to EXHAUSTIVE candidates are all measured. Of more, single tensors are (`predict`), and the policies worth measuring
are taken from the prediction: not beyond the tolerance, not beaten in bytes, time and loss by another one, at most
SHORTLIST of them, spread over the sizes. The guard then looks at each, those that pass are timed (`race`), and the
choice (`decide`) has to meet the tolerance on all windows, most of which the search has not seen; otherwise the next
one is chosen. Where none holds, the policies of least predicted loss are measured, SHORTLIST at a time. So the choice
and the Pareto set are the best of what was measured, not of all that is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

from bottleneck_core.errors import UserError
from bottleneck_core.memory import CachePolicy
from bottleneck_core.tune.decide import Candidate, Rules, decide, pareto
from bottleneck_core.tune.guard import Part, Quality
from bottleneck_core.tune.predict import Guess, Probes
from bottleneck_core.tune.race import Unrunnable, race
from bottleneck_core.tune.space import Rejected, Sized
from bottleneck_core.tune.spelling import policy_name

EXHAUSTIVE = 24
SHORTLIST = 16
FALLBACKS = 3  # more shortlists where none of the first holds


class Measure(Protocol):
    """How candidates are measured. Both raise Unrunnable with the reason."""

    def seconds(self, policy: CachePolicy) -> Sequence[float]: ...

    def quality(self, policy: CachePolicy, part: Part) -> Quality: ...


@dataclass(frozen=True, kw_only=True)
class Found:
    """`chosen`, and `why`; `measured` are all candidates that passed the guard (the chosen among them)."""

    chosen: Candidate
    why: str
    measured: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    probes: int


class PolicySearch:
    """Searches among policies that fit the budget.

    `base` is one of `sized`, or None where the base policy does not fit. `tolerance`: largest logit difference that
    the guard lets pass; None: unguarded. A base that stores everything in fp16 is what is compared with, and passes.
    """

    def __init__(
        self,
        sized: Sequence[Sized],
        base: Sized | None,
        measure: Measure,
        *,
        tensors: Iterable[str],
        tolerance: float | None,
        rules: Rules,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.tensors = list(tensors)
        self.sized = {self._name(each): each for each in sized}
        self.base = None if base is None else self._name(base)
        self.measure = measure
        self.tolerance = tolerance
        self.rules = rules
        self.say = say
        self.rejected: dict[str, Rejected] = {}
        self.qualities: dict[str, Quality] = {}
        self.probes = 0

    def run(self) -> Found:
        """Search. Raises UserError where no policy that was measured may be used."""
        measured: dict[str, Candidate] = {}
        for batch in self._batches():
            measured |= {each.name: each for each in self._timed(self._passing(batch))}
            chosen = self._confirmed(measured)
            if chosen is not None:
                return Found(
                    chosen=chosen[0],
                    why=chosen[1],
                    measured=tuple(measured.values()),
                    rejected=tuple(self.rejected.values()),
                    probes=self.probes,
                )
        raise UserError(self._nothing())

    def _batches(self) -> Iterator[list[str]]:
        """Names of what is measured together; the next batch is asked for where nothing of the last one holds."""
        base = [] if self.base is None else [self.base]
        others = [name for name in self.sized if name != self.base]
        if len(others) <= EXHAUSTIVE:
            yield base + others
            return
        guesses = self._guesses(others)
        first = self._shortlist(guesses)
        yield base + first
        rest = sorted((name for name in others if name not in first), key=lambda name: guesses[name].loss)
        for begin in range(0, min(len(rest), FALLBACKS * SHORTLIST), SHORTLIST):
            yield rest[begin : begin + SHORTLIST]

    def _guesses(self, names: Sequence[str]) -> dict[str, Guess]:
        probes = Probes(self.tensors, [self.sized[name].policy for name in names])
        measured = {}
        for name, policy in probes.policies.items():
            self.say(f"probing {name}")
            try:
                loss = 0.0 if self.tolerance is None else self._quality(name, policy).largest
                measured[name] = Guess(seconds=median(self.measure.seconds(policy)), loss=loss)
            except Unrunnable as error:
                self.say(f"{name}: {error}")
        self.probes = len(measured)
        return {name: probes.guess(self.sized[name].policy, measured) for name in names}

    def _shortlist(self, guesses: dict[str, Guess]) -> list[str]:
        plausible = []
        for name, guess in guesses.items():
            if self.tolerance is not None and guess.loss > self.tolerance:
                self._reject(name, "predicted loss", f"about {guess.loss:.3g}, not measured")
                continue
            size = self.sized[name].bytes
            plausible.append(Candidate(value=name, name=name, bytes=size, seconds=guess.seconds, loss=guess.loss))
        if not plausible:
            return []
        front = pareto(plausible)
        best, _ = decide(front, None, self.rules)
        picked = {best.name, *(front[at].name for at in _spread(len(front), SHORTLIST - 1))}
        in_front = {each.name for each in front}
        for each in plausible:
            if each.name not in picked:
                beaten = "another one is expected to be smaller, faster and closer"
                why = "too many to measure all" if each.name in in_front else beaten
                self._reject(each.name, "not measured", why)
        return [name for name in guesses if name in picked]

    def _passing(self, names: Sequence[str]) -> list[str]:
        """Those that the guard lets pass on the windows of the search."""
        if self.tolerance is None:
            return list(names)
        passing = []
        for name in names:
            self.rejected.pop(name, None)
            try:
                quality = self._quality(name, self.sized[name].policy)
            except Unrunnable as error:
                self._reject(name, "cannot run", str(error))
                continue
            self.say(f"{name}: largest logit difference {quality.largest:.3g}")
            if self._exempt(name) or quality.meets(self.tolerance):
                passing.append(name)
            else:
                self._reject(name, "quality", _beyond(quality, self.tolerance))
        return passing

    def _timed(self, names: Sequence[str]) -> list[Candidate]:
        policies = {name: self.sized[name].policy for name in names}
        entrants = {name: lambda policy=policy: self.measure.seconds(policy) for name, policy in policies.items()}
        times, failed = race(entrants, self.base)
        for name, reason in failed.items():
            self._reject(name, "cannot run", reason)
        for name, seconds in times.items():
            self.say(f"{name}: {seconds * 1e3:.3f} ms a token")
        return [self._candidate(name, seconds) for name, seconds in times.items()]

    def _confirmed(self, measured: dict[str, Candidate]) -> tuple[Candidate, str] | None:
        """The choice that holds on all windows; those that do not are taken out of `measured`."""
        while measured:
            base = None if self.base is None else measured.get(self.base)
            chosen, why = decide(list(measured.values()), base, self.rules)
            if self.tolerance is None:
                return chosen, why
            try:
                quality = self.measure.quality(chosen.value.policy, "all")
            except Unrunnable as error:
                self._reject(chosen.name, "cannot run", str(error))
                del measured[chosen.name]
                continue
            self.qualities[chosen.name] = quality
            self.say(f"{chosen.name}: on all windows {quality.largest:.3g}, {quality.expected_worst:.3g} expected")
            if self._exempt(chosen.name) or quality.meets(self.tolerance):
                chosen = replace(chosen, quality=quality, loss=quality.largest)
                measured[chosen.name] = chosen
                return chosen, why
            self._reject(chosen.name, "held-out quality", _beyond(quality, self.tolerance))
            del measured[chosen.name]
        return None

    def _quality(self, name: str, policy: CachePolicy) -> Quality:
        if name not in self.qualities:
            self.qualities[name] = self.measure.quality(policy, "search")
        return self.qualities[name]

    def _candidate(self, name: str, seconds: float) -> Candidate:
        quality, sized = self.qualities.get(name), self.sized[name]
        loss = 0.0 if quality is None else quality.largest
        return Candidate(value=sized, name=name, bytes=sized.bytes, seconds=seconds, loss=loss, quality=quality)

    def _exempt(self, name: str) -> bool:
        return name == self.base and name == policy_name(CachePolicy(kind="fp16"), self.tensors)

    def _reject(self, name: str, reason: str, detail: str) -> None:
        self.rejected[name] = Rejected(what=name, reason=reason, detail=detail)

    def _nothing(self) -> str:
        if not self.sized:
            return "no cache policy fits the memory budget: give a larger --self-opt-mem-budget-mb"
        best = min(self.qualities.items(), key=lambda each: each[1].expected_worst, default=None)
        if best is None:
            return "no cache policy that fits the memory budget could be run: give a larger --self-opt-mem-budget-mb"
        return (
            f"no measured cache policy within the memory budget meets the tolerance {self.tolerance:g} (closest is "
            f"{best[0]}: {best[1].expected_worst:.3g} to be expected): give a larger --self-opt-mem-budget-mb or "
            "--self-opt-quality-tol"
        )

    def _name(self, sized: Sized) -> str:
        return policy_name(sized.policy, self.tensors)


def _beyond(quality: Quality, tolerance: float) -> str:
    return f"logits differ by {quality.largest:.3g}, up to {quality.expected_worst:.3g} expected, of {tolerance:g}"


def _spread(total: int, count: int) -> list[int]:
    """At most `count` indices below `total`, first and last included."""
    if total <= count:
        return list(range(total))
    return [at * (total - 1) // (count - 1) for at in range(count)]

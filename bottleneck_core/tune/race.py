"""Timing many candidates with few measurements: all once, the faster half again, and the last few in several heats.

In a heat each is timed with the others in between, so that a machine that slows down for a while does not decide; what
counts is the median over all runs of a candidate. The base stays in the race to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

LAST = 3  # entrants that run the final heats
FINALS = 4


class Unrunnable(Exception):
    """A candidate that cannot be measured: why, in words."""


def race(
    entrants: Mapping[str, Callable[[], Sequence[float]]], base: str | None = None
) -> tuple[dict[str, float], dict[str, str]]:
    """Median seconds of the entrants, each a function that measures itself, and why the others could not run."""
    runs: dict[str, list[float]] = {}
    failed: dict[str, str] = {}

    def heat(names: Iterable[str]) -> None:
        for name in names:
            try:
                runs.setdefault(name, []).extend(entrants[name]())
            except Unrunnable as error:
                failed[name] = str(error)

    running = list(entrants)
    heat(running)
    while len(running) > 1:
        ranked = sorted((name for name in running if name not in failed), key=lambda name: median(runs[name]))
        final = len(ranked) <= 2 * LAST
        running = ranked[: LAST if final else len(ranked) // 2]
        if base in ranked and base not in running:
            running.append(str(base))
        for _ in range(FINALS if final else 1):
            heat(name for name in running if name not in failed)
        if final:
            break
    return {name: median(times) for name, times in runs.items() if name not in failed}, failed

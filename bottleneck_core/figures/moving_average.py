"""The plain mean of the last values of a training curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


def moving_average(values: ArrayLike, window: int) -> NDArray[np.float64]:
    """Mean of each of `values` (n,) and the `window - 1` before it, same length.

    It looks back only, so that points that are drawn do not move when the run goes on; the first ones average over
    what there is. Gaps (NaN, infinities) stay NaN and count as none of the values. Raises ValueError for a window
    below 1.
    """
    if window < 1:
        raise ValueError(f"the window of a moving average must be at least 1, got {window}")
    x = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(x)
    known = np.where(finite, x, np.nan)
    if window == 1:
        return known
    mean = pd.Series(known).rolling(window, min_periods=1).mean()
    return np.where(finite, np.asarray(mean), np.nan)

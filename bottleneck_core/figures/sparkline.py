"""A curve small enough for a table cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .downsample import visible_rows

# Shorter curves show every fall they have.
_LONG = 8


def sparkline(values: ArrayLike, points: int = 60) -> list[float]:
    """The finite ones of `values` (n,), thinned to about `points`, extremes kept; none where there is no line.

    The start of a long curve is cut at the 99th percentile of the rest: the fall from ln(vocabulary) would leave a
    flat line at the bottom of the cell.
    """
    y = np.asarray(values, dtype=np.float64)
    y = y[np.isfinite(y)]
    if len(y) < 2:
        return []
    rows = visible_rows(np.arange(len(y), dtype=np.float64), y, max(points // 4, 1))
    if len(y) < _LONG:
        return y[rows].round(5).tolist()
    ceiling = max(float(np.percentile(y[1 + len(y) // 50 :], 99)), float(y[-1]))
    return np.minimum(y[rows], ceiling).round(5).tolist()

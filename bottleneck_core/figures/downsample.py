"""Which rows of a long curve to draw.

Per pixel column the first, the last, the least and the greatest value are kept (M4 aggregation, Jugel et al.,
VLDB 2014): a line through them colours the same pixels as the line through all rows. A row without a value is
kept for each column that has one, so that a gap in the data is a gap in the line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]

# Columns that cover what lies outside a zoomed range: enough to see where one is when zooming out.
_OVERVIEW_COLUMNS = 120


def visible_rows(x: NDArray, y: NDArray, columns: int = 600, x_range: Range | None = None) -> NDArray[np.intp]:
    """Sorted row numbers to draw of y (n,) over x (n,); x is finite and does not decrease, y may hold NaN.

    At most 5 rows per pixel column (4 values and a gap). With `x_range` its rows get all `columns`, down to every
    single row, and the rest is kept coarsely. Linear in n, without a Python loop.
    """
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} values and y has {len(y)}")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    n = len(x)
    if x_range is None:
        return _columns(x, y, 0, n, columns)
    low, high = sorted(x_range)
    start, stop = int(np.searchsorted(x, low, "left")), int(np.searchsorted(x, high, "right"))
    # The parts outside keep their rows next to the range, so the line reaches its borders.
    parts = (
        _columns(x, y, 0, start, _OVERVIEW_COLUMNS),
        _columns(x, y, start, stop, columns),
        _columns(x, y, stop, n, _OVERVIEW_COLUMNS),
    )
    return np.concatenate(parts)


def _columns(x: NDArray, y: NDArray, start: int, stop: int, columns: int) -> NDArray[np.intp]:
    """Row numbers in [start, stop) to keep when this stretch is `columns` pixels wide."""
    n = stop - start
    if n <= 4 * columns:
        return np.arange(start, stop, dtype=np.intp)
    x, y = x[start:stop], y[start:stop]
    gap = ~np.isfinite(y)

    # Equal widths in x, as pixels are. `edges` are the first rows of the columns that hold any row.
    borders = np.linspace(x[0], x[-1], columns + 1)[1:-1]
    edges = np.unique(np.concatenate(([0], np.searchsorted(x, borders, "left"))))
    edges = edges[edges < n]
    column = np.repeat(np.arange(len(edges)), np.diff(np.append(edges, n)))

    value_rows = np.flatnonzero(~gap)
    keep = [
        _first_of_each(value_rows, column),
        _first_of_each(value_rows[::-1], column),
        _first_of_each(np.flatnonzero(y == np.minimum.reduceat(np.where(gap, np.inf, y), edges)[column]), column),
        _first_of_each(np.flatnonzero(y == np.maximum.reduceat(np.where(gap, -np.inf, y), edges)[column]), column),
        _first_of_each(np.flatnonzero(gap), column),
    ]
    return np.unique(np.concatenate(keep)) + start


def _first_of_each(rows: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.intp]:
    """The first of `rows` (ascending or descending) in each column."""
    if len(rows) == 0:
        return rows
    of = column[rows]
    return rows[np.append(True, of[1:] != of[:-1])]

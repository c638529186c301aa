"""Which rows of a long curve to draw.

Per column of about a pixel the first, the last, the least and the greatest value are kept (M4 aggregation, Jugel et
al., VLDB 2014): a line through them colours the same pixels as the line through all rows. A row without a value is
kept for each column that has one, so that a gap in the data is a gap in the line.

Columns are as wide as a power of two and begin at the curve's first x. So a curve that grows keeps the points it has:
new rows change its last column, and where the columns double, some of the old points go but none comes or moves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]

# Columns that cover what lies outside a zoomed range: enough to see where one is when zooming out.
_OVERVIEW_COLUMNS = 120


def visible_rows(x: NDArray, y: NDArray, columns: int = 600, x_range: Range | None = None) -> NDArray[np.intp]:
    """Sorted row numbers to draw of y (n,) over x (n,); x is finite and does not decrease, y may hold NaN.

    At most `columns` columns, more than half as many where rows are spread evenly, and at most 5 rows in each (4 values
    and a gap). With `x_range` its rows get all `columns`, down to every single row, and the rest is kept coarsely.
    Linear in n, without a Python loop over rows.
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
    width = _width(float(x[-1] - x[0]), columns)
    # First row and past-the-last row of each column that holds any row.
    borders = np.searchsorted(x, x[0] + width * np.arange(1, columns), "left")
    edges = np.unique(np.concatenate(([0], borders[borders < n], [n])))
    firsts, ends = edges[:-1], edges[1:]

    gap = ~np.isfinite(y)
    if not gap.any():
        keep = [firsts, ends - 1, *_extremes(y, y, firsts, ends)]
        return np.unique(np.concatenate(keep)) + start
    column = np.repeat(np.arange(len(firsts)), ends - firsts)
    value_rows = np.flatnonzero(~gap)
    keep = [
        _first_of_each(value_rows, column),
        _first_of_each(value_rows[::-1], column),
        # In a column without any value these are its first row, which is kept as a gap.
        *_extremes(np.where(gap, np.inf, y), np.where(gap, -np.inf, y), firsts, ends),
        _first_of_each(np.flatnonzero(gap), column),
    ]
    return np.unique(np.concatenate(keep)) + start


def _width(span: float, columns: int) -> float:
    """The least power of two of which `columns` reach over `span`, its end included."""
    if not span > 0:
        return 1.0
    width = 2.0 ** np.floor(np.log2(span / columns))
    while span // width >= columns:
        width *= 2
    return float(width)


def _extremes(
    low: NDArray, high: NDArray, firsts: NDArray[np.intp], ends: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows of the least of `low` and of the greatest of `high` in each column, the first of equal ones."""
    columns = list(zip(firsts.tolist(), ends.tolist(), strict=True))
    least = np.fromiter((first + low[first:end].argmin() for first, end in columns), np.intp, len(columns))
    greatest = np.fromiter((first + high[first:end].argmax() for first, end in columns), np.intp, len(columns))
    return least, greatest


def _first_of_each(rows: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.intp]:
    """The first of `rows` (ascending or descending) in each column."""
    if len(rows) == 0:
        return rows
    of = column[rows]
    return rows[np.append(True, of[1:] != of[:-1])]

"""Runs over each other: one line a run or a group, with what lies behind it, a band or the raw values."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from . import numbers
from .curves import Series, value_range
from .downsample import visible_rows
from .labels import spread, text_width
from .layout import axis, axis_title, base_layout, note
from .palette import translucent
from .tables import html_text
from .view import View

# Up to six lines are labelled at their ends; of more, the colours are told by what stands above the chart.
_DIRECT_LABELS = 6
# With more lines than these raw values and bands are a fog, and a hover box with all of them covers the chart.
_MOST_RAW = 12
# Bytes of all points of a figure: with twelve bytes a point, sixteen as base64.
_POINT_BYTES = 16
_MOST_BYTES = 600_000
_MOST_COLUMNS = 600
_LEAST_COLUMNS = 40
# 4 values a pixel column, and rarely a gap.
_ROWS_A_COLUMN = 4
_NAME_LENGTH = 34
# Degrees on the colour wheel: the two shades of a hue differ by less, two hues by more.
_SAME_HUE = 10

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line: y (n,) over rising x (n,), all rows of it.

    `raw` (n,) is drawn faint behind it, `low` and `high` (n,) as a band. `points` marks each value.
    """

    name: str
    color: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    raw: NDArray[np.float64] | None = None
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    dash: str = "solid"
    points: bool = False


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """What is particular to the chart: titles with units, how values are written, scales."""

    title: str
    x_title: str
    format: Callable[[float], str] = numbers.scalar
    hover_format: str = ".5g"
    height: int = 460
    log_x: bool = False
    empty: str = "none of the runs has this metric"


def dashes_of(colors: Sequence[str]) -> list[str]:
    """A dash pattern for each line (`#RRGGBB`): solid, unless an earlier one has a shade of the same hue."""
    hues = [_hue(color) for color in colors]
    found: list[str] = []
    for i, (color, hue) in enumerate(zip(colors, hues, strict=True)):
        same = [found[j] for j in range(i) if colors[j] == color]
        like = [found[j] for j in range(i) if abs(hues[j] - hue) < _SAME_HUE]
        # When all patterns are taken, the one that is taken least.
        found.append(min(DASHES, key=lambda dash: (same.count(dash), like.count(dash))))
    return found


def columns_for(layers: int) -> int:
    """Pixel columns that each of so many lines may use, so that all of them are some hundred kilobytes."""
    most = _MOST_BYTES // (_POINT_BYTES * _ROWS_A_COLUMN * max(layers, 1))
    return int(min(max(most, _LEAST_COLUMNS), _MOST_COLUMNS))


def overlay_figure(lines: Sequence[Line], view: View, chart: Overlay) -> go.Figure:
    """All `lines` with a value in one figure; without any the figure says so.

    The view's `log_y`, `all_values`, `x_range`, `columns` and `theme` count. On a log x-axis x without a logarithm is
    left out, and `x_range` is of logarithms, as plotly reports it. Thinning comes last: what is given was smoothed.
    """
    known = [line for line in lines if np.isfinite(line.y).any()]
    raw = len(known) <= _MOST_RAW
    y_range = value_range([s for line in known for s in _ranged(line, raw)], view)
    drawn = [line for line in (_placed(line, chart.log_x) for line in known) if np.isfinite(line.y).any()]
    layers = sum(1 + 2 * (line.low is not None) + (raw and line.raw is not None) for line in drawn)
    columns = min(view.columns, columns_for(layers))
    traces: list[dict[str, Any]] = []
    for line in drawn:
        traces += _band(line, view, columns, chart)
    if raw:
        for line in drawn:
            if line.raw is not None:
                traces.append(_trace(line, line.raw, view, columns, chart) | _FAINT | _faint_line(line))
    traces += [_trace(line, line.y, view, columns, chart) for line in drawn]

    labels = _end_labels(drawn, y_range, view, chart) if 0 < len(drawn) <= _DIRECT_LABELS else []
    right = max([view.right, *(text_width(label["text"]) + 14 for label in labels)])
    layout = base_layout(view.theme, title=chart.title, height=chart.height, right=right)
    layout["hovermode"] = "x unified" if raw else "closest"
    layout["hoverlabel"] |= {"namelength": -1}
    layout["xaxis"] = axis(view.theme, hoverformat=",.6~g", exponentformat="SI", separatethousands=True)
    layout["xaxis"]["title"] = axis_title(view.theme, chart.x_title)
    if (extent := _extent(drawn)) is not None:
        layout["xaxis"]["range"] = list(extent)
    if chart.log_x:
        layout["xaxis"] |= {"type": "log"}
    layout["yaxis"] = axis(view.theme, nticks=8, exponentformat="SI")
    if view.log_y:
        layout["yaxis"] |= {"type": "log", "tickformat": "~g"}
    if y_range is not None:
        layout["yaxis"]["range"] = list(y_range)
    layout["annotations"] = labels if drawn else [note(view.theme, chart.empty)]
    return go.Figure(traces, layout)


_FAINT = {"hoverinfo": "skip", "hovertemplate": None, "mode": "lines"}


def _placed(line: Line, log_x: bool) -> Line:
    """The line in the coordinates in which it is thinned: logarithms of x where the axis is logarithmic."""
    if not log_x:
        return line
    keep = line.x > 0

    def rows(values: NDArray | None) -> NDArray | None:
        return None if values is None else values[keep]

    return Line(
        name=line.name,
        color=line.color,
        x=np.log10(line.x[keep]),
        y=line.y[keep],
        raw=rows(line.raw),
        low=rows(line.low),
        high=rows(line.high),
        dash=line.dash,
        points=line.points,
    )


def _ranged(line: Line, raw: bool) -> list[Series]:
    """What the y-axis has to show of a line."""
    shown = [line.y, line.raw if raw else None, line.low, line.high]
    return [Series(name=line.name, x=line.x, y=y, color=line.color) for y in shown if y is not None]


def _trace(line: Line, y: NDArray, view: View, columns: int, chart: Overlay) -> dict[str, Any]:
    rows = visible_rows(line.x, y, columns, view.x_range)
    markers = (line.points and len(rows) <= 100) or len(rows) == 1
    return {
        "type": "scatter",
        "x": _compact(line.x[rows], chart.log_x),
        "y": y[rows].astype(np.float32),
        "name": html_text(line.name),
        "mode": "lines+markers" if markers else "lines",
        "line": {"color": line.color, "width": 2.0, "dash": line.dash},
        "marker": {"color": line.color, "size": 5},
        "cliponaxis": not markers,
        "hovertemplate": f"%{{y:{chart.hover_format}}}",
        "connectgaps": False,
    }


def _faint_line(line: Line) -> dict[str, Any]:
    return {"line": {"color": translucent(line.color, 0.25), "width": 1.0}, "name": html_text(f"{line.name}, raw")}


def _band(line: Line, view: View, columns: int, chart: Overlay) -> list[dict[str, Any]]:
    """Two invisible lines with the space between them filled, one pair for each stretch without a gap."""
    if line.low is None or line.high is None:
        return []
    traces: list[dict[str, Any]] = []
    for start, stop in _stretches(np.isfinite(line.low) & np.isfinite(line.high)):
        x = line.x[start:stop]
        for edge in (line.low[start:stop], line.high[start:stop]):
            rows = visible_rows(x, edge, columns, view.x_range)
            traces.append(
                {
                    "type": "scatter",
                    "x": _compact(x[rows], chart.log_x),
                    "y": edge[rows].astype(np.float32),
                    "name": html_text(f"{line.name}, band"),
                    "mode": "lines",
                    "line": {"width": 0, "color": line.color},
                    "hoverinfo": "skip",
                }
            )
        traces[-1] |= {"fill": "tonexty", "fillcolor": translucent(line.color, 0.18)}
    return traces


def _stretches(known: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and past-the-last row of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], known, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _extent(lines: Sequence[Line]) -> tuple[float, float] | None:
    ends = [(line.x[0], line.x[-1]) for line in lines]
    if not ends:
        return None
    low, high = float(min(a for a, _ in ends)), float(max(b for _, b in ends))
    return (low, high) if high > low else None


def _end_labels(
    lines: Sequence[Line], y_range: tuple[float, float] | None, view: View, chart: Overlay
) -> list[dict[str, Any]]:
    """Name and last value of each line in one column right of the plot, shifted apart where they would overlap."""
    if y_range is None:
        return []
    low, high = y_range
    height = chart.height - 74  # less the margins of `base_layout`
    lasts = [float(line.y[np.isfinite(line.y)][-1]) for line in lines]
    places = [np.log10(y) if view.log_y and y > 0 else y for y in lasts]
    wanted = [(high - min(max(y, low), high)) / (high - low) * height for y in places]
    return [
        {
            "text": f"{html_text(line.name, _NAME_LENGTH)} {chart.format(last)}",
            "x": 1,
            "xref": "paper",
            "y": 1 - at / height,
            "yref": "paper",
            "xanchor": "left",
            "yanchor": "middle",
            "xshift": 6,
            "showarrow": False,
            "font": {"color": line.color, "size": 12},
        }
        for line, last, at in zip(lines, lasts, spread(wanted, height), strict=True)
    ]


def _compact(x: NDArray[np.float64], log_x: bool) -> NDArray:
    """x in four bytes where that loses nothing that a pixel shows; back from logarithms."""
    if log_x:
        return (10.0**x).astype(np.float32)
    whole = len(x) == 0 or (np.abs(x).max() < 2**31 and bool(np.all(x == np.floor(x))))
    return x.astype(np.int32) if whole else x.astype(np.float32)


def _hue(color: str) -> float:
    """Degrees on the colour wheel of `#RRGGBB`."""
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 360 * colorsys.rgb_to_hsv(red, green, blue)[0]

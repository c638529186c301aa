"""Curves over training: raw values faint, smoothed values strong, the last value at the line's end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from . import numbers
from .downsample import visible_rows
from .labels import spread, text_width
from .layout import axis, axis_title, base_layout, note
from .marks import Mark, mark_traces
from .palette import Theme, ink, translucent
from .smoothing import ema
from .view import View, XScale

# Up to six lines are labelled at their ends; more would not fit and get a legend.
_DIRECT_LABELS = 6
# The first 2 % of steps fall from ln(vocabulary) and would flatten everything after them.
_WARMUP_SHARE = 0.02
# Rows that tell where the bulk of a long curve lies.
_BULK_ROWS = 20_000
# Pixels that a colour bar and its numbers take.
_COLOR_BAR = 56


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: y (n,) over x (n,).

    `smooth` adds the smoothed line, `points` marks each value, `best` marks the least, `label` names it at its end.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    color: str
    smooth: bool = False
    points: bool = False
    best: bool = False
    label: bool = True
    dash: str = "solid"

    @classmethod
    def of(cls, frame: pd.DataFrame, column: str, scale: XScale, *, name: str, color: str, **style: Any) -> Series:
        """The rows of `frame` that have a place on the x-axis, in its order; none without the column."""
        x = scale.values(frame)
        if column not in frame or len(x) == 0:
            return cls(name=name, x=np.empty(0), y=np.empty(0), color=color, **style)
        y = frame[column].to_numpy(np.float64)
        if np.isinf(y).any():
            y = np.where(np.isfinite(y), y, np.nan)
        placed = np.isfinite(x)
        if not placed.all():
            x, y = x[placed], y[placed]
        if np.any(x[1:] < x[:-1]):  # a clock that was set back
            order = np.argsort(x, kind="stable")
            x, y = x[order], y[order]
        return cls(name=name, x=x, y=y, color=color, **style)


@dataclass(frozen=True, kw_only=True)
class ColorBar:
    """What the colours of many lines stand for: `title` 0 to n - 1 along `colors` (n)."""

    title: str
    colors: Sequence[str]

    def trace(self, theme: Theme, left: float) -> dict[str, Any]:
        """A trace without points that carries the bar, `left` pixels right of the plot."""
        last = len(self.colors) - 1
        scale = [[i / last, color] for i, color in enumerate(self.colors)]
        bar = {
            "title": {"text": self.title, "side": "right", "font": {"color": ink("muted", theme), "size": 12}},
            "thickness": 8,
            "outlinewidth": 0,
            "len": 1,
            "x": 1,
            "xpad": left,
            "tickvals": [0, last],
            "tickfont": {"color": ink("muted", theme), "size": 11},
        }
        marker = {"color": [0], "cmin": 0, "cmax": last, "colorscale": scale, "showscale": True, "colorbar": bar}
        hidden = {"x": [None], "y": [None], "mode": "markers", "hoverinfo": "skip", "showlegend": False}
        return {"type": "scatter", "name": self.title, "marker": marker, **hidden}


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is particular to one chart."""

    title: str
    format: Callable[[float], str] = numbers.scalar
    hover_format: str = ".5g"
    height: int = 240
    marks: Sequence[Mark] = field(default_factory=tuple)
    x_title: bool = True
    y_floor: float | None = None
    exponent: Literal["SI", "e"] = "SI"
    color_bar: ColorBar | None = None


def curve_figure(series: Sequence[Series], scale: XScale, view: View, chart: Chart) -> go.Figure:
    """All `series` with a value in one figure; with none of them the figure says so."""
    drawn = [s for s in series if np.isfinite(s.y).any()]
    traces: list[dict[str, Any]] = []
    y_range = value_range(drawn, view, chart.y_floor)
    ends = []
    for s in drawn:
        smoothed = ema(s.y, view.smoothing) if s.smooth and view.smoothing > 0 else None
        traces += _lines(s, smoothed, view, chart)
        ends.append((s, smoothed if smoothed is not None else s.y))
    ends = [end for end in ends if end[0].label]
    direct = len(ends) <= _DIRECT_LABELS
    labels = _end_labels(ends, y_range, view, chart, named=len(drawn) > 1) if direct and ends else []
    traces += mark_traces(chart.marks, view.theme)

    right = max([view.right, *(text_width(str(label["text"])) + 12 for label in labels)])
    if chart.color_bar and drawn:
        traces.append(chart.color_bar.trace(view.theme, right))
        right += _COLOR_BAR
    layout = base_layout(view.theme, title=chart.title, height=chart.height, right=right)
    layout["xaxis"] = axis(view.theme, hoverformat=",.6~g", exponentformat="SI", separatethousands=True)
    layout["xaxis"]["range"] = view.x_extent or _x_range(drawn)
    if chart.x_title:
        layout["xaxis"]["title"] = axis_title(view.theme, scale.title)
    layout["yaxis"] = axis(view.theme, nticks=6, exponentformat=chart.exponent)
    if view.log_y:  # with a format of its own each tick has all of its digits
        layout["yaxis"] |= {"type": "log", "tickformat": "~g"}
    if y_range is not None:
        layout["yaxis"]["range"] = list(y_range)
    layout["yaxis2"] = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    layout["annotations"] = labels if drawn else [note(view.theme, "no values yet")]
    if not direct:
        layout |= {
            "showlegend": True,
            "legend": {"orientation": "v", "x": 1.01, "y": 1, "font": {"size": 11}},
        }
        layout["margin"]["r"] = 110
    # At once: updating a figure piece by piece takes plotly five times as long.
    return go.Figure(traces, layout)


def value_range(series: Sequence[Series], view: View, floor: float | None = None) -> tuple[float, float] | None:
    """Limits of the y-axis (log10 of them on a log axis); None if there is nothing to show.

    From the 1st to the 99th percentile of what comes after the first 2 % of the x-axis, of marked values from the
    least to the greatest; with `view.all_values` of everything. `floor` is included, and some air.
    """
    end = max((s.x[-1] for s in series if len(s.x)), default=0.0)
    limits: list[float] = []
    for s in series:
        # Marked values are few, and each of them counts; of raw values only the bulk does.
        bulk = not (view.all_values or s.points)
        late = s.y[0 if view.all_values else np.searchsorted(s.x, _WARMUP_SHARE * end) :]
        y = _usable(late[:: max(1, len(late) // _BULK_ROWS)] if bulk else late, view)
        if len(y) == 0:
            y = _usable(s.y, view)
        if len(y) == 0:
            continue
        limits += np.percentile(y, (1, 99)).tolist() if bulk else [y.min(), y.max()]
    if not limits:
        return None
    if view.log_y:
        limits = np.log10(limits).tolist()
    elif floor is not None:
        limits.append(floor)
    low, high = float(min(limits)), float(max(limits))
    air = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    # What is never negative gets no negative axis.
    bottom = low - air if view.log_y or low < 0 else max(low - air, 0.0)
    return bottom, high + air


def _usable(y: NDArray, view: View) -> NDArray:
    """The values that have a place on the y-axis."""
    return y[np.isfinite(y) & (y > 0)] if view.log_y else y[np.isfinite(y)]


def _lines(s: Series, smoothed: NDArray | None, view: View, chart: Chart) -> list[dict[str, Any]]:
    """The traces of one series: raw, smoothed over it, the best value."""
    raw_color = s.color if smoothed is None else translucent(s.color, 0.28)
    layers = [(s.name, s.y, raw_color, 1.8)]
    if smoothed is not None:
        layers = [(f"{s.name}, raw", s.y, raw_color, 1.0), (s.name, smoothed, s.color, 2.0)]
    hover = f"%{{y:{chart.hover_format}}}"
    traces: list[dict[str, Any]] = []
    for name, y, color, width in layers:
        # A smoothed line has no detail within two pixels.
        columns = view.columns if y is s.y else max(view.columns // 2, 1)
        rows = visible_rows(s.x, y, columns, view.x_range)
        markers = (s.points and len(rows) <= 100) or len(rows) == 1
        traces.append(
            {
                "type": "scatter",
                "x": _compact(s.x[rows]),
                "y": y[rows].astype(np.float32),
                "name": name,
                "mode": "lines+markers" if markers else "lines",
                "cliponaxis": not markers,
                "line": {"color": color, "width": width, "dash": s.dash},
                "marker": {"color": color, "size": 5},
                "hovertemplate": hover,
                "connectgaps": False,
            }
        )
    if s.best:
        i = int(np.nanargmin(s.y))
        outline = {"width": 1.5, "color": ink("surface", view.theme)}
        traces.append(
            {
                "type": "scatter",
                "x": [float(s.x[i])],
                "y": [float(s.y[i])],
                "name": f"best {s.name}",
                "mode": "markers",
                "cliponaxis": False,
                "marker": {"symbol": "star", "size": 13, "color": s.color, "line": outline},
                "hovertemplate": hover,
            }
        )
    return traces


def _x_range(series: Sequence[Series]) -> list[float] | None:
    """From the first to the last x of all; plotly's air would part the labels from the lines."""
    if not series:
        return None
    low, high = min(s.x[0] for s in series), max(s.x[-1] for s in series)
    return [float(low), float(high)] if high > low else None


def _end_labels(
    ends: Sequence[tuple[Series, NDArray]],
    y_range: tuple[float, float] | None,
    view: View,
    chart: Chart,
    named: bool,
) -> list[dict[str, Any]]:
    """Annotations at the lines' ends: last value, and name if `named`, shifted apart where they would overlap."""
    if y_range is None:
        return []
    low, high = y_range
    plot_height = chart.height - 74  # less the margins of `base_layout`
    places, texts = [], []
    for s, y in ends:
        last_row = int(np.flatnonzero(np.isfinite(y))[-1])
        last = float(y[last_row])
        # Annotations on a log axis are placed by the logarithm.
        shown = np.log10(last) if view.log_y and last > 0 else last
        places.append((float(s.x[last_row]), float(min(max(shown, low), high))))
        texts.append(f"{s.name} {chart.format(last)}" if named else chart.format(last))
    # Training and validation end a few steps apart: their labels still stand in one column.
    right = max(x for x, _ in places)
    left = min(s.x[0] for s, _ in ends)
    places = [(right if right - x <= 0.05 * (right - left) else x, y) for x, y in places]
    wanted = [(high - y) / (high - low) * plot_height for _, y in places]
    return [
        {
            "text": text,
            "x": x,
            "y": y,
            "xanchor": "left",
            "yanchor": "middle",
            "xshift": 6,
            "yshift": before - after,
            "showarrow": False,
            "font": {"color": s.color, "size": 12},
        }
        for (s, _), text, (x, y), before, after in zip(
            ends, texts, places, wanted, spread(wanted, plot_height), strict=True
        )
    ]


def _compact(x: NDArray[np.float64]) -> NDArray:
    """Steps as 32-bit integers, half the bytes of the rest."""
    whole = len(x) == 0 or (np.all(x == np.floor(x)) and np.abs(x).max() < 2**31)
    return x.astype(np.int32) if whole else x

"""Parallel coordinates: an upright axis for each number in which runs differ, and a line a run across them.

Drawn with plain lines rather than plotly's `parcoords`, whose lines have no names, no dashes and no hovering.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from .labels import text_width
from .layout import base_layout, note
from .palette import Theme, ink
from .quantities import Quantity, RunPoint, varying
from .tables import html_text

# More than this do not fit beside another chart.
MOST_AXES = 8
# A span of two orders of magnitude is looked at by its logarithm.
_LOG_SPAN = 100.0
_BOTTOM, _TOP = 62, 58
_LABEL_WIDTH = 70


def parallel_figure(
    points: Sequence[RunPoint], quantities: Sequence[Quantity], *, theme: Theme = "light", height: int = 380
) -> go.Figure:
    """A line for each point over those `quantities` that differ, at most `MOST_AXES`, in their order.

    A line is broken where its run does not know a number. Customdata is the point's number in `points`.
    """
    shown = varying(quantities, points)[:MOST_AXES]
    layout = base_layout(theme, title="settings and results that differ", height=height, top=_TOP)
    layout["margin"] |= {"l": 48, "r": 48, "b": _BOTTOM}
    layout["hovermode"] = "closest"
    hidden = {"visible": False, "fixedrange": True}
    layout["xaxis"] = {**hidden, "range": [-0.04, max(len(shown) - 1, 1) + 0.04]}
    layout["yaxis"] = {**hidden, "range": [-0.03, 1.03]}
    if len(shown) < 2:
        layout["annotations"] = [note(theme, "the runs differ in fewer than two numbers")]
        return go.Figure([], layout)
    scales = [_Scale(quantity, points) for quantity in shown]
    layout["shapes"] = [
        {"type": "line", "x0": i, "x1": i, "y0": 0, "y1": 1, "layer": "below", "line": {"color": ink("axis", theme)}}
        for i in range(len(shown))
    ]
    layout["annotations"] = [text for i, scale in enumerate(scales) for text in scale.labels(i, theme)]
    opacity = 1.0 if len(points) <= 12 else 0.6
    return go.Figure([_line(i, point, scales, opacity) for i, point in enumerate(points)], layout)


class _Scale:
    """Values of one quantity to [0, 1]."""

    def __init__(self, quantity: Quantity, points: Sequence[RunPoint]) -> None:
        self.quantity = quantity
        found = [point.values.get(quantity.key) for point in points]
        values = [float(v) for v in found if v is not None and quantity.known(v)]
        self.low, self.high = min(values), max(values)
        self.log = self.low > 0 and self.high / self.low >= _LOG_SPAN

    def place(self, value: float | None) -> float | None:
        if value is None or not self.quantity.known(value):
            return None
        low, high, at = self.low, self.high, float(value)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)

    def labels(self, at: int, theme: Theme) -> list[dict[str, Any]]:
        """The quantity's name below, turned where it is long, and the limits at the axis' ends."""
        label = self.quantity.label + (" (log)" if self.log else "")
        common = {"x": at, "showarrow": False, "xanchor": "center"}
        muted = {"size": 11, "color": ink("muted", theme)}
        format = self.quantity.format
        return [
            {**common, "y": 1, "yshift": 12, "text": format(self.high), "font": muted},
            {**common, "y": 0, "yshift": -12, "text": format(self.low), "font": muted},
            {
                **common,
                "y": 0,
                "yanchor": "top",
                "yshift": -22,
                "text": "<br>".join(html_text(part) for part in _two_lines(label)),
                "font": {"size": 12, "color": ink("text", theme)},
            },
        ]


def _two_lines(label: str) -> list[str]:
    """A long label in two parts of about the same length."""
    gaps = [i for i, c in enumerate(label) if c == " "]
    if text_width(label) <= _LABEL_WIDTH or not gaps:
        return [label]
    middle = min(gaps, key=lambda i: abs(i - len(label) / 2))
    return [label[:middle], label[middle + 1 :]]


def _line(number: int, point: RunPoint, scales: Sequence[_Scale], opacity: float) -> dict[str, Any]:
    values = [point.values.get(scale.quantity.key) for scale in scales]
    return {
        "type": "scatter",
        "x": list(range(len(scales))),
        "y": [scale.place(value) for scale, value in zip(scales, values, strict=True)],
        "mode": "lines+markers",
        "name": html_text(point.name),
        "opacity": opacity,
        "cliponaxis": False,
        "line": {"color": point.color, "width": 2, "dash": point.dash},
        "marker": {"color": point.color, "size": 6},
        "customdata": [
            [number, html_text(scale.quantity.title), scale.quantity.format(value) if value is not None else ""]
            for scale, value in zip(scales, values, strict=True)
        ],
        "hovertemplate": "<b>%{fullData.name}</b><br>%{customdata[1]} %{customdata[2]}<extra></extra>",
        "connectgaps": False,
    }

"""One number of each run against another, with the frontier of quality against memory where these are the two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go

from .frontier import frontier
from .labels import Box, place
from .layout import axis, axis_title, base_layout, note
from .palette import Theme, ink
from .quantities import Quantity, RunPoint, log_ticks
from .tables import html_text

LOSS, CACHE = "best_val_loss", "kv_bytes_per_token"

# Pixels that the page gives to the chart; only labels depend on it.
_WIDTH = 620
# With more runs names would cover points: they are told on hovering.
_MOST_LABELS = 20
_NAME_LENGTH = 30
Range = tuple[float, float]


def pareto(points: Sequence[RunPoint]) -> list[RunPoint]:
    """The points that no other beats in both validation loss and cache bytes per token, by growing bytes."""
    rows = [
        {"best_val_loss": point.values.get(LOSS), "kv_bytes_128k": point.values.get(CACHE), "point": point}
        for point in points
    ]
    return [row["point"] for row in frontier(rows)]


def scatter_figure(
    points: Sequence[RunPoint], x: Quantity, y: Quantity, *, theme: Theme = "light", height: int = 380
) -> go.Figure:
    """The points that know both quantities. Each carries its number in `points` as customdata."""
    shown = [(i, p) for i, p in enumerate(points) if x.known(p.values.get(x.key)) and y.known(p.values.get(y.key))]
    layout = base_layout(theme, title=f"{y.label} against {x.label}", height=height)
    layout["margin"]["l"] = 64
    layout["hovermode"] = "closest"
    x_range, y_range = (_range([v for _, p in shown for v in _ends(p, q)], q) for q in (x, y))
    layout["xaxis"] = _axis(x, x_range, theme, 6)
    layout["yaxis"] = _axis(y, y_range, theme, 7)
    if not shown:
        layout["annotations"] = [note(theme, "no run knows both of these numbers")]
        return go.Figure([], layout)
    traces = _frontier_line(points, x, y, theme)
    sides = _sides([p for _, p in shown], _frontier_points(points, x, y), x, y, x_range, y_range, height)
    traces.append(
        {
            "type": "scatter",
            "x": [_at(p, x) for _, p in shown],
            "y": [_at(p, y) for _, p in shown],
            "mode": "markers+text",
            "name": "runs",
            "text": [
                html_text(p.name, _NAME_LENGTH) if side else "" for (_, p), side in zip(shown, sides, strict=True)
            ],
            "textposition": [side or "top center" for side in sides],
            "textfont": {"size": 12, "color": ink("text", theme)},
            "cliponaxis": False,
            "error_x": _spread([p for _, p in shown], x, theme),
            "error_y": _spread([p for _, p in shown], y, theme),
            "marker": {
                "color": [p.color for _, p in shown],
                "size": 12,
                "line": {"color": ink("surface", theme), "width": 1.5},
            },
            "customdata": [[i, html_text(p.name), x.format(_at(p, x)), y.format(_at(p, y))] for i, p in shown],
            "hovertemplate": (
                f"<b>%{{customdata[1]}}</b><br>{html_text(x.title)} %{{customdata[2]}}"
                f"<br>{html_text(y.title)} %{{customdata[3]}}<extra></extra>"
            ),
        }
    )
    return go.Figure(traces, layout)


def _frontier_line(points: Sequence[RunPoint], x: Quantity, y: Quantity, theme: Theme) -> list[dict[str, Any]]:
    best = _frontier_points(points, x, y)
    if not best:
        return []
    # A step: between two runs, what is known to be reached is the loss of the smaller cache.
    shape = "hv" if x.key == CACHE else "vh"
    line = {"color": ink("muted", theme), "width": 1.5, "dash": "dot", "shape": shape}
    at = {"x": [_at(p, x) for p in best], "y": [_at(p, y) for p in best]}
    return [{"type": "scatter", **at, "mode": "lines", "name": "frontier", "line": line, "hoverinfo": "skip"}]


def _frontier_points(points: Sequence[RunPoint], x: Quantity, y: Quantity) -> list[RunPoint]:
    """Those that a line is drawn through, if the axes are the two that have a frontier."""
    best = pareto(points) if {x.key, y.key} == {LOSS, CACHE} else []
    return best if len(best) > 1 else []


def _spread(points: Sequence[RunPoint], quantity: Quantity, theme: Theme) -> dict[str, Any]:
    """Bars from the least to the greatest number of each group."""
    ends = [_ends(point, quantity) for point in points]
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - _at(point, quantity) for point, (_, high) in zip(points, ends, strict=True)],
        "arrayminus": [_at(point, quantity) - low for point, (low, _) in zip(points, ends, strict=True)],
        "visible": any(high > low for low, high in ends),
        "color": ink("muted", theme),
        "thickness": 1.5,
        "width": 0,
    }


def _at(point: RunPoint, quantity: Quantity) -> float:
    value = point.values[quantity.key]
    assert value is not None
    return float(value)


def _ends(point: RunPoint, quantity: Quantity) -> Range:
    at = _at(point, quantity)
    return point.spread.get(quantity.key, (at, at))


def _range(values: Sequence[float], quantity: Quantity) -> Range:
    """Limits of an axis with air for points and labels; log10 of them on a log axis."""
    if not values:
        return 0.0, 1.0
    places = [math.log10(v) for v in values] if quantity.log else list(values)
    low, high = min(places), max(places)
    air = 0.12 * (high - low) or (0.3 if quantity.log else 0.05 * abs(high) or 0.5)
    return low - air, high + air


def _axis(quantity: Quantity, limits: Range, theme: Theme, most: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"range": list(limits), "title": axis_title(theme, html_text(quantity.title))}
    if quantity.log:
        ticks = log_ticks(10 ** limits[0], 10 ** limits[1], binary=quantity.binary, most=most)
        settings |= {"type": "log", "tickvals": ticks, "ticktext": [quantity.format(tick) for tick in ticks]}
    else:
        settings |= {"nticks": most, "exponentformat": "SI"}
    return axis(theme, **settings)


def _sides(
    points: Sequence[RunPoint],
    frontier: Sequence[RunPoint],
    x: Quantity,
    y: Quantity,
    x_range: Range,
    y_range: Range,
    height: int,
) -> list[str | None]:
    """A place for each name that covers no point, no other name and not the frontier."""
    width, tall = _WIDTH - 80.0, height - 74.0

    def share(point: RunPoint, quantity: Quantity, limits: Range) -> float:
        value = _at(point, quantity)
        return ((math.log10(value) if quantity.log else value) - limits[0]) / (limits[1] - limits[0])

    def place_of(point: RunPoint) -> tuple[float, float]:
        return share(point, x, x_range) * width, (1 - share(point, y, y_range)) * tall

    places = [place_of(point) for point in points]
    corners = [place_of(point) for point in frontier]
    line = [at for a, b in pairwise(corners) for at in _dots(a, (b[0], a[1]) if x.key == CACHE else (a[0], b[1]), b)]
    names = [html_text(p.name, _NAME_LENGTH) if len(points) <= _MOST_LABELS else "" for p in points]
    texts = [*names, *[""] * len(line)]
    return place([*places, *line], texts, Box(left=0, top=0, right=width, bottom=tall))[: len(points)]


def _dots(*corners: tuple[float, float]) -> list[tuple[float, float]]:
    """Points every few pixels along a line, for labels to keep off."""
    found = []
    for (left, top), (right, bottom) in pairwise(corners):
        steps = int(math.dist((left, top), (right, bottom)) // 8)
        found += [(left + (right - left) * i / steps, top + (bottom - top) * i / steps) for i in range(2, steps - 1)]
    return found

"""Quality against memory: the best validation loss of each run over the bytes that its cache takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from . import numbers
from .labels import Box, place
from .layout import axis, base_layout
from .palette import Theme, attention_color, ink
from .tables import html_text

# Pixels that the page gives to the plot; only labels depend on it.
_WIDTH = 900
# Title, then the legend in a line of its own.
_TOP = 58
# With more runs only those on the frontier are labelled.
_MOST_LABELS = 40
# Of more, those that would lie on top of another of their colour are left out: a cell is smaller than half a point.
_MOST_POINTS = 500
_CELL = 4.0


def comparable(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows (dicts of the run index) that know both their best validation loss and their KV bytes."""
    return [r for r in rows if _positive(r.get("best_val_loss")) and _positive(r.get("kv_bytes_128k"))]


def frontier(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The runs that no other run beats in both, by growing memory: each is better than all that take less."""
    best: list[Mapping[str, Any]] = []
    for row in sorted(comparable(rows), key=lambda r: (r["kv_bytes_128k"], r["best_val_loss"])):
        if not best or row["best_val_loss"] < best[-1]["best_val_loss"]:
            best.append(row)
    return best


def quality_figure(
    rows: Sequence[Mapping[str, Any]],
    *,
    at: str = "128k",
    sizes: Sequence[float | None] | None = None,
    theme: Theme = "light",
    height: int = 340,
) -> go.Figure:
    """Best validation loss over KV bytes (log), coloured by attention, with the frontier.

    `sizes` are the rows' bytes at another context than 128,000 tokens, `at` is that in words. Points carry their row
    number in `rows` as customdata; of many on one spot the best is drawn.
    """
    if sizes is not None:
        kept = ("id", "attn_mode", "best_val_loss")
        rows = [
            {name: row.get(name) for name in kept} | {"kv_bytes_128k": size}
            for row, size in zip(rows, sizes, strict=True)
        ]
    number = {id(row): i for i, row in enumerate(rows)}
    every = comparable(rows)
    x_range, y_range = _limits(every)
    shown = _apart(every, x_range, y_range, height)
    traces: list[dict[str, Any]] = []
    line = frontier(shown)
    if len(line) > 1:
        traces.append(
            {
                "type": "scatter",
                "x": [r["kv_bytes_128k"] for r in line],
                "y": [r["best_val_loss"] for r in line],
                "mode": "lines",
                "line": {"color": ink("axis", theme), "width": 1.5, "dash": "dot", "shape": "hv"},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    sides = _label_sides(shown, x_range, y_range, height)
    for mode in dict.fromkeys(r.get("attn_mode") for r in shown):
        group = [i for i, r in enumerate(shown) if r.get("attn_mode") == mode]
        traces.append(
            {
                "type": "scatter",
                "x": [shown[i]["kv_bytes_128k"] for i in group],
                "y": [shown[i]["best_val_loss"] for i in group],
                "name": mode or "unknown",
                "mode": "markers+text",
                "text": [html_text(shown[i]["id"]) if sides[i] else "" for i in group],
                "textposition": [sides[i] or "top center" for i in group],
                "textfont": {"size": 12, "color": ink("text", theme)},
                "marker": {
                    "color": attention_color(mode, theme),
                    "size": 12,
                    "line": {"color": ink("surface", theme), "width": 1.5},
                },
                "customdata": [
                    [
                        number[id(shown[i])],
                        html_text(shown[i]["id"]),
                        numbers.loss(shown[i]["best_val_loss"]),
                        numbers.size(shown[i]["kv_bytes_128k"]),
                        numbers.exact_size(shown[i]["kv_bytes_128k"]),
                    ]
                    for i in group
                ],
                "hovertemplate": (
                    "<b>%{customdata[1]}</b><br>validation loss %{customdata[2]}"
                    "<br>KV cache %{customdata[3]} (%{customdata[4]})"
                ),
            }
        )
    title = f"best validation loss (nats per token) over KV cache at {at} tokens"
    layout = base_layout(theme, title=title, height=height, top=_TOP)
    layout["hovermode"] = "closest"
    layout["showlegend"] = True
    layout["legend"] = {
        "orientation": "h",
        "x": 1,
        "xanchor": "right",
        "y": 1,
        "yanchor": "bottom",
        "font": {"size": 12},
        "itemsizing": "constant",
    }
    ticks = _byte_ticks(x_range)
    layout["xaxis"] = axis(
        theme,
        type="log",
        range=[math.log10(v) for v in x_range],
        tickvals=ticks,
        ticktext=[numbers.size(tick) for tick in ticks],
    )
    layout["yaxis"] = axis(theme, range=list(y_range), nticks=6)
    return go.Figure(traces, layout)


def _limits(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, float], tuple[float, float]]:
    x = [float(r["kv_bytes_128k"]) for r in rows] or [1.0]
    y = [float(r["best_val_loss"]) for r in rows] or [0.0]
    # A third of an octave on either side, or a factor of two around a single value.
    factor = 2 ** max(0.35, 0.08 * math.log2(max(x) / min(x)) if max(x) > min(x) else 1.0)
    air = 0.15 * (max(y) - min(y)) or 0.1
    return (min(x) / factor, max(x) * factor), (min(y) - air, max(y) + air)


def _apart(
    rows: list[Mapping[str, Any]], x_range: tuple[float, float], y_range: tuple[float, float], height: int
) -> list[Mapping[str, Any]]:
    """Of many rows one a cell and colour, the best: what they look like all together, in a few of them."""
    if len(rows) <= _MOST_POINTS:
        return rows
    across = _WIDTH / _CELL / math.log(x_range[1] / x_range[0])
    down = height / _CELL / (y_range[1] - y_range[0])
    cells: dict[tuple[int, int, Any], Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda r: r["best_val_loss"]):
        cell = (
            int(math.log(row["kv_bytes_128k"] / x_range[0]) * across),
            int((row["best_val_loss"] - y_range[0]) * down),
            row.get("attn_mode"),
        )
        cells.setdefault(cell, row)
    return list(cells.values())


def _label_sides(
    rows: Sequence[Mapping[str, Any]], x_range: tuple[float, float], y_range: tuple[float, float], height: int
) -> list[str | None]:
    width, tall = _WIDTH - 72.0, height - _TOP - 40.0
    span = math.log(x_range[1] / x_range[0])
    points = [
        (
            math.log(float(r["kv_bytes_128k"]) / x_range[0]) / span * width,
            (y_range[1] - float(r["best_val_loss"])) / (y_range[1] - y_range[0]) * tall,
        )
        for r in rows
    ]
    best = {id(r) for r in frontier(rows)}
    texts = [str(r["id"]) if len(rows) <= _MOST_LABELS or id(r) in best else "" for r in rows]
    return place(points, texts, Box(left=0, top=0, right=width, bottom=tall))


def _byte_ticks(x_range: tuple[float, float]) -> list[float]:
    """Powers of two, at most nine of them."""
    low, high = math.ceil(math.log2(x_range[0])), math.floor(math.log2(x_range[1]))
    stride = max(1, math.ceil((high - low + 1) / 9))
    return [2.0**k for k in range(low, high + 1, stride)]


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0

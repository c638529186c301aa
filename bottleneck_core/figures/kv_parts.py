"""What KV caches are made of: a stacked bar a cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from . import numbers
from .kv import plain, short, whole_size
from .labels import text_width
from .layout import axis, axis_title, base_layout, note
from .palette import Theme, ink, translucent

_TOP, _BOTTOM = 34, 46
_BAR, _BAR_GAP = 34, 26
_SHADES = (0.9, 0.5, 0.25)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a bar: `detail` is what hovering adds to its name; parts of one `shade` belong together."""

    name: str
    detail: str
    bytes: int
    shade: int = 0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One cache and what it is made of."""

    name: str
    color: str
    segments: Sequence[Segment]


def breakdown_figure(
    bars: Sequence[Bar],
    *,
    title: str,
    shares: bool = False,
    theme: Theme = "light",
    width: int = 480,
    height: int | None = None,
) -> go.Figure:
    """One stacked bar a cache, its parts in shades of its colour; with `shares` all bars are equally long.

    `width`: pixels that the page gives to the bars; only which parts are named inside depends on it.
    """
    height = height or _TOP + _BOTTOM + max(1, len(bars)) * (_BAR + _BAR_GAP)
    layout = base_layout(theme, title=title, height=height, top=_TOP)
    layout["margin"] |= {"b": _BOTTOM, "l": 8}
    longest = max((sum(segment.bytes for segment in bar.segments) for bar in bars), default=0)
    if not longest:
        layout |= {"xaxis": {"visible": False}, "yaxis": {"visible": False}}
        layout["annotations"] = [note(theme, "nothing is cached")]
        return go.Figure([], layout)
    traces: list[dict[str, Any]] = []
    for place, bar in enumerate(bars):
        total = sum(segment.bytes for segment in bar.segments)
        for segment in bar.segments:
            length = 100 * segment.bytes / max(total, 1) if shares else segment.bytes
            pixels = length / (100 if shares else longest) * width
            traces.append(_segment_trace(bar, segment, place, length, total, pixels, theme))
    power = max(0, math.floor(math.log(longest, 1024))) if longest >= 1000 else 0
    unit = 1024**power
    layout["barmode"] = "stack"
    layout["bargap"] = _BAR_GAP / (_BAR + _BAR_GAP)
    layout["hovermode"] = "closest"
    layout["annotations"] = [_bar_label(bar, place, theme) for place, bar in enumerate(bars)]
    layout["xaxis"] = axis(theme, range=[0, 100 if shares else longest], title=axis_title(theme, "share of each cache"))
    if shares:
        layout["xaxis"]["ticksuffix"] = " %"
    else:
        ticks = [step * unit for step in _round_steps(longest / unit)]
        layout["xaxis"] |= {
            "tickvals": ticks,
            "ticktext": [whole_size(tick) for tick in ticks],
            "title": axis_title(theme, "bytes of all layers and requests"),
        }
    layout["yaxis"] = {"range": [len(bars) - 0.5, -0.72], "visible": False, "fixedrange": True}
    return go.Figure(traces, layout)


def _segment_trace(
    bar: Bar, segment: Segment, place: int, length: float, total: int, pixels: float, theme: Theme
) -> dict[str, Any]:
    alpha = _SHADES[segment.shade % len(_SHADES)]
    name = plain(segment.name)
    dark_text = theme == "dark" or alpha < 0.6
    return {
        "type": "bar",
        "orientation": "h",
        "x": [length],
        "y": [place],
        "name": name,
        "marker": {
            "color": translucent(bar.color, alpha),
            "line": {"color": ink("surface", theme), "width": 1.5},
        },
        "text": [name if text_width(name) + 10 < pixels else ""],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "textfont": {"size": 12, "color": _on_segment(alpha, theme) if dark_text else "#FFFFFF"},
        "constraintext": "none",
        "customdata": [
            [
                plain(segment.detail),
                numbers.size(segment.bytes),
                numbers.exact_size(segment.bytes),
                f"{100 * segment.bytes / max(total, 1):.1f}",
            ]
        ],
        "hovertemplate": (
            f"<b>{name}</b><br>%{{customdata[1]}} (%{{customdata[2]}}), %{{customdata[3]}} %"
            "<br>%{customdata[0]}<extra></extra>"
        ),
    }


def _on_segment(alpha: float, theme: Theme) -> str:
    """Ink that is legible on a shade: dark hues are light ones in the dark theme."""
    return ink("surface", theme) if theme == "dark" and alpha > 0.8 else ink("text", theme)


def _bar_label(bar: Bar, place: int, theme: Theme) -> dict[str, Any]:
    """The bar's name and total, above it."""
    total = sum(segment.bytes for segment in bar.segments)
    return {
        "text": f"{plain(short(bar.name))} · {numbers.size(total)}",
        "x": 0,
        "xref": "paper",
        "y": place - _BAR / (_BAR + _BAR_GAP) / 2,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12, "color": bar.color},
    }


def _round_steps(most: float) -> list[float]:
    """About five round numbers from 0 to `most`."""
    rough = most / 4
    scale = 10 ** math.floor(math.log10(rough))
    step = next(s * scale for s in (1, 2, 2.5, 5, 10) if s * scale >= rough)
    return [step * i for i in range(math.floor(most / step) + 1)]

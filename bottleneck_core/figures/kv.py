"""KV cache sizes: bytes over the context, beside the memory of devices."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from . import numbers
from .labels import LINE_HEIGHT, spread, text_width
from .layout import axis, axis_title, base_layout, note
from .palette import Theme, ink

_TOP, _BOTTOM = 34, 46
_MOST_TICKS = 9
# Devices have names in the plot: as many as fit with this distance, in pixels.
_DEVICE_GAP = 17.0
LONGEST_NAME = 32


@dataclass(frozen=True, kw_only=True)
class SizeLine:
    """Bytes (n,) of one cache over tokens (n,), both positive."""

    name: str
    color: str
    tokens: Sequence[int]
    bytes: Sequence[int]


def size_figure(
    lines: Sequence[SizeLine],
    *,
    context: int,
    devices: Mapping[str, int],
    chosen: str | None = None,
    theme: Theme = "light",
    height: int = 420,
) -> go.Figure:
    """Bytes over the context, log-log, one line a cache; `devices` (name: bytes) are horizontal lines.

    The chosen device is always named, the others as far as there is room. `context` is marked on each line.
    """
    layout = base_layout(
        theme, title="KV cache (bytes of all layers and requests) over context", height=height, top=_TOP
    )
    layout["margin"]["b"] = _BOTTOM
    if not lines:
        layout |= {"xaxis": {"visible": False}, "yaxis": {"visible": False}}
        layout["annotations"] = [note(theme, "no scenario has a size yet")]
        return go.Figure([], layout)
    x_range = (min(line.tokens[0] for line in lines), max(line.tokens[-1] for line in lines))
    y_range = _y_range(lines, devices)
    named = _named_devices(devices, chosen, y_range, height)
    traces = [_device_trace(size, x_range, name == chosen, theme) for name, size in named.items()]
    traces += [_context_trace(context, y_range, theme)]
    for line in lines:
        traces += _line_traces(line, context, theme)
    ends = _end_labels(lines, y_range, height)
    layout["margin"]["r"] = max(text_width(label["text"]) for label in ends) + 14
    layout["margin"]["l"] = 64
    layout["annotations"] = [*ends, *_device_labels(named, chosen, x_range, theme), _context_label(context, theme)]
    ticks = [10**power for power in range(8) if x_range[0] <= 10**power <= x_range[1]]
    layout["xaxis"] = axis(
        theme,
        type="log",
        range=[math.log10(value) for value in x_range],
        tickvals=ticks,
        ticktext=[numbers.count(tick).replace(".00", "").replace(".0", "") for tick in ticks],
        title=axis_title(theme, "context (tokens of each request)"),
        unifiedhovertitle={"text": "%{x:,} tokens"},
        spikecolor=ink("axis", theme),
        spikethickness=1,
        spikedash="dot",
    )
    bytes_ticks = _byte_ticks(y_range)
    layout["yaxis"] = axis(
        theme,
        type="log",
        range=[math.log10(value) for value in y_range],
        tickvals=bytes_ticks,
        ticktext=[whole_size(tick) for tick in bytes_ticks],
    )
    return go.Figure(traces, layout)


def _line_traces(line: SizeLine, context: int, theme: Theme) -> list[dict[str, Any]]:
    """The line, and a point at the chosen context."""
    name = plain(line.name)
    words = [[numbers.size(size), numbers.exact_size(size)] for size in line.bytes]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "x": list(line.tokens),
            "y": list(line.bytes),
            "name": name,
            "mode": "lines",
            "line": {"color": line.color, "width": 2.5},
            "customdata": words,
            "hovertemplate": "%{customdata[0]} (%{customdata[1]})",
        }
    ]
    at = next((i for i, tokens in enumerate(line.tokens) if tokens == context), None)
    if at is not None:
        marker = {"color": line.color, "size": 10, "line": {"color": ink("surface", theme), "width": 2}}
        point = {"x": [context], "y": [line.bytes[at]], "mode": "markers", "marker": marker, "cliponaxis": False}
        traces.append({"type": "scatter", "name": f"{name} here", "hoverinfo": "skip", **point})
    return traces


def _device_trace(size: int, x_range: tuple[int, int], strong: bool, theme: Theme) -> dict[str, Any]:
    line = {"color": ink("muted" if strong else "axis", theme), "width": 1.5 if strong else 1, "dash": "dash"}
    return {
        "type": "scatter",
        "x": list(x_range),
        "y": [size, size],
        "mode": "lines",
        "line": line,
        "hoverinfo": "skip",
        "name": "device",
    }


def _context_trace(context: int, y_range: tuple[float, float], theme: Theme) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": [context, context],
        "y": list(y_range),
        "mode": "lines",
        "line": {"color": ink("axis", theme), "width": 1},
        "hoverinfo": "skip",
        "name": "context",
    }


def _context_label(context: int, theme: Theme) -> dict[str, Any]:
    return {
        "text": f"{context:,}",
        "x": math.log10(context),
        "xref": "x",
        "y": 0,
        "yref": "paper",
        "xanchor": "right",
        "yanchor": "bottom",
        "xshift": -4,
        "showarrow": False,
        "font": {"color": ink("muted", theme), "size": 11},
    }


def _device_labels(
    devices: Mapping[str, int], chosen: str | None, x_range: tuple[int, int], theme: Theme
) -> list[dict[str, Any]]:
    return [
        {
            "text": f"{plain(name)} · {numbers.size(size)}",
            "x": math.log10(x_range[0]),
            "y": math.log10(size),
            "xanchor": "left",
            "yanchor": "bottom",
            "xshift": 4,
            "showarrow": False,
            "font": {"color": ink("text" if name == chosen else "muted", theme), "size": 11},
        }
        for name, size in devices.items()
    ]


def _named_devices(
    devices: Mapping[str, int], chosen: str | None, y_range: tuple[float, float], height: int
) -> dict[str, int]:
    """The chosen device, then the others from the smallest on, as far as their names stay apart."""
    pixels = (height - _TOP - _BOTTOM) / math.log(y_range[1] / y_range[0])
    named: dict[str, int] = {}
    for name in sorted(devices, key=lambda name: (name != chosen, devices[name])):
        size = devices[name]
        if size > 0 and all(abs(math.log(size / other)) * pixels >= _DEVICE_GAP for other in named.values()):
            named[name] = size
    return named


def _y_range(lines: Sequence[SizeLine], devices: Mapping[str, int]) -> tuple[float, float]:
    """All lines and devices, and some air."""
    sizes = [size for line in lines for size in line.bytes if size > 0] or [1]
    low, high = min(sizes), max([*sizes, *devices.values()])
    air = (high / low) ** 0.04 if high > low else 2.0
    return low / air, high * air


def _end_labels(lines: Sequence[SizeLine], y_range: tuple[float, float], height: int) -> list[dict[str, Any]]:
    """Names and sizes at the lines' ends, shifted apart where they would overlap."""
    length = height - _TOP - _BOTTOM
    low, high = (math.log(value) for value in y_range)
    wanted = [(high - math.log(max(line.bytes[-1], 1))) / (high - low) * length for line in lines]
    return [
        {
            "text": f"{plain(short(line.name))} {numbers.size(line.bytes[-1])}",
            "x": math.log10(line.tokens[-1]),
            "y": math.log10(max(line.bytes[-1], 1)),
            "xanchor": "left",
            "yanchor": "middle",
            "xshift": 8,
            "yshift": before - after,
            "showarrow": False,
            "font": {"color": line.color, "size": 12},
        }
        for line, before, after in zip(lines, wanted, spread(wanted, length, LINE_HEIGHT + 1), strict=True)
    ]


def _byte_ticks(y_range: tuple[float, float]) -> list[float]:
    """Powers of two that are multiples of a round step."""
    low, high = math.log2(y_range[0]), math.log2(y_range[1])
    step = next((s for s in (1, 2, 5, 10) if (high - low) / s <= _MOST_TICKS), 20)
    return [2.0**k for k in range(math.ceil(low / step) * step, math.floor(high) + 1, step)]


def whole_size(value: float) -> str:
    """A round number of bytes without zeros behind the point: `4 GiB`, `2.5 MiB`."""
    number, _, unit = numbers.size(value).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def plain(text: str) -> str:
    """Names come from anywhere; plotly reads tags in labels and placeholders in templates."""
    return html.escape(text, quote=False).replace("%{", "% {")

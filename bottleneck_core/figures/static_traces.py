"""The traces of our plotly figures on matplotlib's axes: lines, points, names, bands, maps, bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from numpy.typing import NDArray

from .layout import layout_of
from .static_text import POINTS, color_map, drawable, plain_text, points, rgba

DASHES: dict[str, Any] = {
    "solid": "-",
    "dash": (0, (5, 3)),
    "dot": (0, (1.2, 2)),
    "dashdot": (0, (5, 2, 1.2, 2)),
    "longdash": (0, (9, 3)),
}
_SYMBOLS = {"circle": "o", "star": "*", "x": "x", "triangle-up": "^", "triangle-right": ">", "square": "s"}
_STEPS = {"hv": "steps-post", "vh": "steps-pre"}
_SIDES = {
    "middle right": ("left", "center", 11, 0),
    "middle left": ("right", "center", -11, 0),
    "top center": ("center", "bottom", 0, 8),
    "bottom center": ("center", "top", 0, -8),
}


def draw_traces(axes: dict[str, Axes], plot: go.Figure) -> None:
    """All traces of `plot`, in its order. Raises ValueError for a kind that no figure of ours has."""
    traces: Any = plot.data
    before: Any = None
    for trace in traces:
        if trace.type not in ("scatter", "heatmap", "bar"):
            raise ValueError(f"a trace of type {trace.type} cannot be drawn on paper")
        on = axes[trace.xaxis or "x"]
        if trace.type == "heatmap":
            _heatmap(on, trace, plot)
        elif trace.type == "bar":
            on.barh(np.arange(len(trace.x)), numbers_of(trace.x), height=1.0, color=rgba(trace.marker.color))
        elif not trace.marker.showscale:  # a trace with a scale carries the colour bar and has no points
            if trace.fill == "tonexty" and before is not None:
                _band(on, before, trace)
            _scatter(on, trace)
        before = trace


def numbers_of(values: Any) -> NDArray[np.float64]:
    """A trace's values; None is a gap."""
    return np.array([np.nan if v is None else v for v in values] if values is not None else [], dtype=np.float64)


def line_style(trace: Any) -> dict[str, Any]:
    """Colour, width and dash of a trace's line."""
    width = 2.0 if trace.line.width is None else float(trace.line.width)
    dash = DASHES[trace.line.dash or "solid"]
    return {"color": rgba(trace.line.color or "#000000"), "linewidth": width * POINTS, "linestyle": dash}


def _scatter(axes: Axes, trace: Any) -> None:
    x, y = numbers_of(trace.x), numbers_of(trace.y)
    mode = trace.mode or "lines"
    # Marks on a run's events have an axis of their own, from 0 to 1 of the plot's height.
    where: Any = axes.get_xaxis_transform() if trace.yaxis == "y2" else axes.transData
    drawstyle: Any = _STEPS.get(trace.line.shape or "", "default")
    if "lines" in mode and trace.line.width != 0:
        axes.plot(x, y, transform=where, drawstyle=drawstyle, solid_capstyle="round", **line_style(trace))
    for name, errors in (("xerr", trace.error_x), ("yerr", trace.error_y)):
        if errors.visible:
            bars: Any = {name: [numbers_of(errors.arrayminus), numbers_of(errors.array)]}
            axes.errorbar(x, y, fmt="none", ecolor=rgba(errors.color), elinewidth=errors.thickness * POINTS, **bars)
    if "markers" in mode:
        _markers(axes, trace, x, y, where)
    if "text" in mode:
        for at_x, at_y, text, side in zip(x, y, trace.text, _each(trace.textposition, len(x)), strict=True):
            ha, va, right, up = _SIDES[side]
            axes.annotate(
                drawable(plain_text(text)),
                (at_x, at_y),
                xytext=(right * POINTS, up * POINTS),
                textcoords="offset points",
                ha=ha,
                va=va,
                size=points(trace.textfont.size),
                color=rgba(trace.textfont.color),
                parse_math=False,
            )


def _markers(axes: Axes, trace: Any, x: NDArray, y: NDArray, where: Any) -> None:
    """Points inside of the plot: on its edge they are drawn whole, beyond it not at all."""
    marker, n = trace.marker, len(x)
    inside = _within(x, axes.get_xlim()) & (_within(y, axes.get_ylim()) if trace.yaxis != "y2" else np.isfinite(y))
    looks = np.array([f"{c} {s}" for c, s in zip(_each(marker.color, n), _each(marker.symbol, n), strict=True)])
    for look in dict.fromkeys(looks[inside]):
        chosen = inside & (looks == look)
        color, _, symbol = look.rpartition(" ")
        shape = _SYMBOLS["circle" if symbol == "None" else symbol]
        crossed = shape == "x"  # it has nothing but its outline
        outline = rgba(marker.line.color) if marker.line.color else "none"
        axes.plot(
            x[chosen],
            y[chosen],
            shape,
            color=rgba(color),
            markersize=float(marker.size or 6) * POINTS,
            markeredgecolor=rgba(color) if crossed else outline,
            markeredgewidth=1.5 if crossed else float(marker.line.width or 0) * POINTS,
            transform=where,
            clip_on=trace.cliponaxis is not False,
            zorder=4,
        )


def _within(values: NDArray, limits: tuple[float, float]) -> NDArray[np.bool_]:
    low, high = sorted(limits)
    return np.isfinite(values) & (values >= low) & (values <= high)


def _each(value: Any, n: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value] * n


def _band(axes: Axes, low: Any, high: Any) -> None:
    """The space between two traces, each of which may have been thinned by itself."""
    x = np.concatenate([numbers_of(low.x), numbers_of(high.x)[::-1]])
    y = np.concatenate([numbers_of(low.y), numbers_of(high.y)[::-1]])
    axes.fill(x, y, facecolor=rgba(high.fillcolor), edgecolor="none", zorder=1)


def _heatmap(axes: Axes, trace: Any, plot: go.Figure) -> None:
    """Cells around whole numbers; those with gaps as squares, big maps as one image."""
    values = np.ma.masked_invalid(np.asarray(trace.z, dtype=np.float64))
    if values.count() == 0:
        return
    low, high = limits_of(trace)
    rows, columns = values.shape
    colors: Any = {"cmap": color_map(trace.colorscale), "vmin": low, "vmax": high}
    if trace.xgap:
        edges = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
        axes.pcolormesh(*edges, values, edgecolors="white", linewidth=trace.xgap * POINTS, **colors)
    else:
        axes.imshow(values, aspect="auto", interpolation="nearest", origin="lower", **colors)
    axes.set_xlim(-0.5, columns - 0.5)
    # Layers and queries are read from the top.
    down = layout_of(plot).yaxis.autorange == "reversed"
    axes.set_ylim(*((rows - 0.5, -0.5) if down else (-0.5, rows - 0.5)))


def limits_of(heatmap: Any) -> tuple[float, float]:
    """The ends of a map's colours."""
    values = np.asarray(heatmap.z, dtype=np.float64)
    low = heatmap.zmin if heatmap.zmin is not None else np.nanmin(values)
    high = heatmap.zmax if heatmap.zmax is not None else np.nanmax(values)
    return float(low), float(high) if high > low else float(low) + 1e-12

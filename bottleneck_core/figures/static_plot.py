"""One plotly figure of ours inside a box of a matplotlib figure: axes, title, labels, legend, colour bar."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullLocator

from .labels import Box
from .layout import layout_of
from .palette import ink
from .static_text import POINTS, color_map, draw_text, drawable, plain_text, points, rgba, width_of
from .static_traces import draw_traces, limits_of, line_style

_LEGEND_LINE = 17
_LEGEND_SAMPLE = 26
_BAR_TEXT = 11
# Of the numbers beside a bar, and of those below an axis with the air between them.
_TICK_WIDTH, _TICK_ROOM = 34, 58


def draw_plot(figure: Figure, plot: go.Figure, box: Box, right: float) -> None:
    """Draws `plot` into `box`, pixels from the sheet's top left, with a margin of `right` pixels."""
    layout = layout_of(plot)
    margin = layout.margin
    area = Box(
        left=box.left + margin.l,
        top=box.top + margin.t,
        right=box.right - right,
        bottom=box.bottom - margin.b,
    )
    # A second one, where there is one, shares the rows of the first.
    horizontal = {
        name: layout[f"{name[0]}axis{name[1:]}"] for name in ("x", "x2") if f"{name[0]}axis{name[1:]}" in layout
    }
    axes = {name: _axes(figure, area, settings.domain or (0, 1)) for name, settings in horizontal.items()}
    for name, settings in horizontal.items():
        _scale(axes[name], settings, layout.yaxis)
        _limits(axes[name], settings, layout.yaxis)
    draw_traces(axes, plot)
    for name, settings in horizontal.items():
        # What was drawn may have moved them.
        _limits(axes[name], settings, layout.yaxis)
        _axis(axes[name].xaxis, settings)
        _axis(axes[name].yaxis, layout.yaxis)
    if "x2" in axes:
        axes["x2"].set_ylim(axes["x"].get_ylim())
        axes["x2"].yaxis.set_visible(False)
    title = layout.title.font
    draw_text(
        figure,
        (area.left, box.top + 6),
        plain_text(layout.title.text or ""),
        size=title.size,
        color=str(title.color),
    )
    for shape in layout.shapes or ():
        _shape(axes["x"], shape)
    for annotation in layout.annotations or ():
        _annotation(axes["x"], annotation)
    _legend(figure, plot, area)
    for trace in plot.data:
        _color_bar(figure, trace, area, box.right)


def right_margin(figure: Figure, plot: go.Figure) -> float:
    """The figure's right margin, or more where its texts there are wider in this font."""
    labels = [a for a in layout_of(plot).annotations or () if a.xanchor == "left"]
    wanted = [float(a.xshift or 0) + width_of(figure, plain_text(a.text), a.font.size) + 6 for a in labels]
    if layout_of(plot).showlegend:
        size = layout_of(plot).legend.font.size or 12
        wanted += [_LEGEND_SAMPLE + 24 + width_of(figure, plain_text(t.name), size) for t in _listed(plot)]
    wanted += [_bar_width(figure, bar) for bar in map(_bar_of, plot.data) if bar is not None]
    return max([float(layout_of(plot).margin.r), *wanted])


def _axes(figure: Figure, area: Box, domain: Any) -> Axes:
    width, height = figure.get_size_inches() * figure.dpi
    wide = area.right - area.left
    left, right = (area.left + wide * share for share in domain)
    axes = figure.add_axes(
        (left / width, 1 - area.bottom / height, (right - left) / width, (area.bottom - area.top) / height)
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_facecolor("none")
    return axes


def _scale(axes: Axes, x: Any, y: Any) -> None:
    if x.type == "log":
        axes.set_xscale("log")
    if y.type == "log":
        axes.set_yscale("log")


def _limits(axes: Axes, x: Any, y: Any) -> None:
    """The ranges that the figure gives; on a log axis they are of logarithms."""
    for settings, place in ((x, axes.set_xlim), (y, axes.set_ylim)):
        if settings.range is not None:
            ends = [float(end) for end in settings.range]
            place(*(10**end for end in ends) if settings.type == "log" else ends)


def _axis(axis: Any, settings: Any) -> None:
    axes = axis.axes
    name = axis.axis_name
    for side in ("bottom",) if name == "x" else ("left",):
        axes.spines[side].set_color(rgba(settings.linecolor))
    axes.tick_params(
        axis=name,
        labelsize=points(settings.tickfont.size),
        labelcolor=rgba(settings.tickfont.color),
        color=rgba(settings.tickcolor),
        length=0,
        pad=4,
        which="both",
    )
    if settings.showgrid is not False:
        axes.grid(axis=name, color=rgba(settings.gridcolor), linewidth=0.8 * POINTS)
        axes.set_axisbelow(True)
    label = drawable(plain_text(settings.title.text or ""))
    (axes.set_xlabel if name == "x" else axes.set_ylabel)(
        label,
        size=points(settings.title.font.size or 12),
        color=rgba(settings.title.font.color),
        labelpad=4,
        parse_math=False,
    )
    _ticks(axis, settings)


def _ticks(axis: Any, settings: Any) -> None:
    if settings.tickvals is not None:
        axis.set_major_locator(FixedLocator(list(settings.tickvals)))
        axis.set_minor_locator(NullLocator())
        texts = settings.ticktext if settings.ticktext is not None else map(tick_text, settings.tickvals)
        axis.set_ticklabels([drawable(plain_text(str(text))) for text in texts], parse_math=False)
        if settings.tickangle is not None:
            axis.axes.tick_params(axis=axis.axis_name, labelrotation=-settings.tickangle)
        return
    if settings.type == "log":
        low, high = sorted(axis.get_view_interval())
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,), numticks=12))
        axis.set_minor_locator(NullLocator())
    elif settings.dtick is not None:
        axis.set_major_locator(MultipleLocator(float(settings.dtick)))
    else:
        most = int(settings.nticks or 7) - 1
        if axis.axis_name == "x":
            most = max(2, min(most, int(axis.axes.get_window_extent().width // _TICK_ROOM)))
        axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))


def tick_text(value: float) -> str:
    """1,500; 20k; 1.5M: the number of an axis."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):g}{unit}"
    return f"{value:,.6g}"


def _shape(axes: Axes, shape: Any) -> None:
    """A frame around a cell, or an upright line over the plot's height."""
    style: Any = {"edgecolor": rgba(shape.line.color), "linewidth": float(shape.line.width or 1) * POINTS}
    if shape.type == "rect":
        axes.add_patch(
            Rectangle((shape.x0, shape.y0), shape.x1 - shape.x0, shape.y1 - shape.y0, fill=False, zorder=3, **style)
        )
    else:
        axes.axvline(shape.x0, color=style["edgecolor"], linewidth=style["linewidth"], linestyle=":")


def _annotation(axes: Axes, note: Any) -> None:
    """A text at a place of the data, of which a log axis takes the logarithm, or of the plot."""
    x, y = float(note.x), float(note.y)
    if note.xref != "paper" and axes.get_xscale() == "log":
        x = 10**x
    if note.yref != "paper" and axes.get_yscale() == "log":
        y = 10**y
    coordinates: Any = tuple("axes fraction" if ref == "paper" else "data" for ref in (note.xref, note.yref))
    axes.annotate(
        drawable(plain_text(note.text)),
        (x, y),
        xycoords=coordinates,
        xytext=(float(note.xshift or 0) * POINTS, float(note.yshift or 0) * POINTS),
        textcoords="offset points",
        ha=note.xanchor if note.xanchor in ("left", "right") else "center",
        va={"top": "top", "bottom": "bottom"}.get(note.yanchor or "", "center"),
        size=points(note.font.size),
        color=rgba(note.font.color),
        annotation_clip=False,
        parse_math=False,
    )


def _listed(plot: go.Figure) -> list[Any]:
    traces: Any = plot.data
    return [trace for trace in traces if trace.showlegend is not False and trace.name]


def _legend(figure: Figure, plot: go.Figure, area: Box) -> None:
    """One line a trace, right of the plot."""
    if not layout_of(plot).showlegend:
        return
    width, height = figure.get_size_inches() * figure.dpi
    size = layout_of(plot).legend.font.size or 12
    for i, trace in enumerate(_listed(plot)):
        y = area.top + _LEGEND_LINE * (i + 0.5)
        left = area.right + 14
        sample = figure.add_axes((left / width, 1 - y / height, _LEGEND_SAMPLE / width, 1 / height))
        sample.plot([0, 1], [0.5, 0.5], clip_on=False, **line_style(trace))
        sample.set_xlim(0, 1)
        sample.set_axis_off()
        at = (left + _LEGEND_SAMPLE + 6, y)
        draw_text(figure, at, plain_text(trace.name), size=size, color=ink("text"), va="center")


def _color_bar(figure: Figure, trace: Any, area: Box, end: float) -> None:
    """The bar of a map, or of a trace that stands for the colours of others, with its title's right end at `end`."""
    bar = _bar_of(trace)
    if bar is None:
        return
    holder = trace if trace.type == "heatmap" else trace.marker
    low, high = limits_of(trace) if trace.type == "heatmap" else (float(holder.cmin), float(holder.cmax))
    width, height = figure.get_size_inches() * figure.dpi
    left = end - _bar_width(figure, bar) + _bar_gap(bar)
    axes = figure.add_axes(
        (left / width, 1 - area.bottom / height, _bar_thickness(bar) / width, (area.bottom - area.top) / height)
    )
    source = ScalarMappable(Normalize(low, high), color_map(holder.colorscale))
    drawn: Any = figure.colorbar(source, cax=axes)
    drawn.outline.set_visible(False)
    axes.tick_params(labelsize=points(_BAR_TEXT), labelcolor=rgba(ink("muted")), length=0, pad=3)
    axes.set_ylabel(
        drawable(plain_text(bar.title.text or "")), size=points(12), color=rgba(ink("muted")), parse_math=False
    )
    if bar.tickvals is not None:
        drawn.set_ticks(list(bar.tickvals))
        axes.set_yticklabels(_bar_texts(bar), parse_math=False)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))


def _bar_of(trace: Any) -> Any:
    """The colour bar that a trace shows; None where it shows none, or no colour."""
    if trace.type == "heatmap":
        known = trace.showscale is not False and np.isfinite(np.asarray(trace.z, dtype=np.float64)).any()
        return trace.colorbar if known else None
    return trace.marker.colorbar if trace.type == "scatter" and trace.marker.showscale else None


def _bar_width(figure: Figure, bar: Any) -> float:
    """Pixels from the plot to the right end of the bar's title."""
    texts = max((width_of(figure, text, _BAR_TEXT) for text in _bar_texts(bar)), default=_TICK_WIDTH)
    return _bar_gap(bar) + _bar_thickness(bar) + 6 + texts + 22


def _bar_texts(bar: Any) -> list[str]:
    texts = bar.ticktext if bar.ticktext is not None else map(tick_text, bar.tickvals or ())
    return [drawable(plain_text(str(text))) for text in texts]


def _bar_gap(bar: Any) -> float:
    return float(bar.xpad if bar.xpad is not None else 10)


def _bar_thickness(bar: Any) -> float:
    return float(bar.thickness or 10)

"""A run's curves as one PNG, drawn with matplotlib: analysis.png, for places where no page can be opened.

Only panels that have data are drawn, and their number decides the layout. No pyplot and no rcParams: nothing global
is touched.
"""

from __future__ import annotations

import io
import math
import os

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from bottleneck_core.figures import numbers
from bottleneck_core.figures.downsample import visible_rows
from bottleneck_core.figures.palette import ink
from bottleneck_core.figures.static_panels import VERMILLION, Attention, Line, Panel, panels_of
from bottleneck_core.store.atomic import atomic_write_bytes

_DPI = 100
_WIDTH, _ROW_HEIGHT, _HEAD_HEIGHT = 16.0, 3.6, 0.6  # inches: 1,600 pixels wide
_LABEL_GAP = 0.08  # least distance of two labels at line ends, as a share of the panel's height
_FEW = 40  # up to this many values are marked one by one
_TEXT, _MUTED, _FRAME, _GRID = ink("text"), ink("muted"), "#C9C6C2", "#ECEAE7"


def write_picture(
    path: str | os.PathLike[str],
    *,
    title: str,
    train: pd.DataFrame,
    eval: pd.DataFrame,
    analysis: pd.DataFrame,
    attention: Attention,
) -> bool:
    """Draw a run and write it to `path` as PNG, atomically. False, and no file, where there is nothing to draw.

    The frames hold one row per event with a column `step`, under the key names of train.jsonl; each may be empty.
    `attention` gives metrics as (steps [S], values [S, layer, head]), NaN where not measured.
    """
    figure = picture(title=title, train=train, eval=eval, analysis=analysis, attention=attention)
    if figure is None:
        return False
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    atomic_write_bytes(path, buffer.getvalue())
    return True


def picture(
    *, title: str, train: pd.DataFrame, eval: pd.DataFrame, analysis: pd.DataFrame, attention: Attention
) -> Figure | None:
    """The figure that `write_picture` writes; one axes per panel. None where no panel has data."""
    panels = panels_of(train, eval, analysis, attention)
    if not panels:
        return None
    columns = {1: 1, 2: 2, 4: 2}.get(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    wide = rows * columns - len(panels) + 1  # the first panel takes the cells that would stay empty
    last_step = max(float(line.x.max()) for panel in panels for line in panel.lines)

    height = _HEAD_HEIGHT + _ROW_HEIGHT * rows
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    FigureCanvasAgg(figure)
    below_head = (0.0, 0.0, 1.0, 1.0 - _HEAD_HEIGHT / height)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1, rect=below_head)
    head = 1.0 - 0.5 * _HEAD_HEIGHT / height
    figure.text(0.008, head, title, va="center", size=16, weight="bold", color=_TEXT, parse_math=False)
    figure.text(0.992, head, _notes(panels), va="center", ha="right", size=12, color=_MUTED)
    grid = figure.add_gridspec(rows, columns)
    for number, panel in enumerate(panels):
        row, column = divmod(number + wide - 1 if number else 0, columns)
        axes = figure.add_subplot(grid[row, column : column + (1 if number else wide)])
        _draw(axes, panel)
        axes.set_xlim(-0.012 * max(last_step, 1.0), 1.012 * max(last_step, 1.0))
        if row == rows - 1:
            axes.set_xlabel("step", size=11, color=_MUTED)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        rows = visible_rows(line.x, line.y, columns=1200)
        axes.plot(
            line.x[rows],
            line.y[rows],
            color=line.color,
            alpha=0.25 if line.faint else 1.0,
            linewidth=1.2 if line.faint or line.thin else 2.2,
            marker="o" if np.isfinite(line.y).sum() <= _FEW and not line.thin else "none",
            markersize=4,
        )
    if panel.log:
        axes.set_yscale("log")
    axes.set_ylim(*_limits(panel))
    _style(axes, panel)
    _mark_events(axes, panel)
    _label_ends(axes, panel)


def _limits(panel: Panel) -> tuple[float, float]:
    """Ends of the y axis. The first steps of a run would flatten all that follows, so they may leave the panel."""
    if panel.y_range is not None and panel.y_range[1] is not None:
        return panel.y_range[0], panel.y_range[1] * 1.02
    is_long = max(np.isfinite(line.y).sum() for line in panel.lines) > _FEW
    start = 0.02 * max(float(line.x.max()) for line in panel.lines) if is_long else 0.0
    values = np.concatenate([line.y[np.isfinite(line.y) & (line.x >= start)] for line in panel.lines])
    shares = [1, 99] if is_long else [0, 100]
    if panel.log:
        low, high = np.percentile(np.log10(values), shares)
        pad = max(0.08 * (high - low), 0.05)
        return float(10 ** (low - pad)), float(10 ** (high + pad))
    low, high = (float(end) for end in np.percentile(values, shares))
    if panel.y_range is not None:
        return panel.y_range[0], 1.1 * max(high, 1e-3)
    pad = max(0.08 * (high - low), 0.01 * abs(high), 1e-3)
    return low - pad, high + pad


def _style(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, loc="left", size=13, color=_TEXT, pad=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FRAME)
    axes.grid(axis="y", color=_GRID)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=11, colors=_MUTED, color=_FRAME, which="both")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    if panel.log:
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,), numticks=12))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _tick(value: float) -> str:
    if abs(value) < 1e4:
        return f"{value:,.6g}"
    return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"


def _mark_events(axes: Axes, panel: Panel) -> None:
    """The least validation loss as a star, steps without a finite loss as crosses on the axis."""
    if panel.best is not None:
        axes.plot(*panel.best, "*", markersize=16, color=VERMILLION, markeredgecolor="white", zorder=5)
    if panel.nonfinite:
        zeros = [0.0] * len(panel.nonfinite)
        on_axis = axes.get_xaxis_transform()
        axes.plot(panel.nonfinite, zeros, "x", color=VERMILLION, transform=on_axis, clip_on=False)


def _notes(panels: list[Panel]) -> str:
    """What the marks mean, for the head of the picture."""
    notes = []
    for panel in panels:
        if panel.nonfinite:
            notes.append(f"× {len(panel.nonfinite)} steps without a finite loss")
        if panel.best is not None:
            step, value = panel.best
            notes.append(f"★ best validation loss {numbers.loss(value)} at step {numbers.steps(step)}")
    return "     ".join(notes)


def _label_ends(axes: Axes, panel: Panel) -> None:
    """Name and last value at each line's end, moved apart where lines end close together."""
    ends: list[tuple[float, Line, float]] = []
    to_share = axes.transData + axes.transAxes.inverted()
    for line in panel.lines:
        if line.faint or (line.thin and not line.label):
            continue
        last = np.flatnonzero(np.isfinite(line.y))[-1]
        share = float(to_share.transform((line.x[last], line.y[last]))[1])
        ends.append((min(max(share, 0.0), 1.0), line, float(line.y[last])))
    ends.sort(key=lambda end: end[0])
    places = _spread([share for share, _, _ in ends])
    for place, (_, line, value) in zip(places, ends, strict=True):
        axes.annotate(
            f"{line.label} {panel.number(value)}".strip(),
            (1.0, place),
            xycoords="axes fraction",
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            size=11,
            color=line.color,
            annotation_clip=False,
        )


def _spread(shares: list[float]) -> list[float]:
    """Rising positions at least _LABEL_GAP apart, near the given ones and, where there is room, below 1."""
    places: list[float] = []
    for share in shares:
        places.append(max(share, places[-1] + _LABEL_GAP) if places else share)
    ceiling = max(1.0, _LABEL_GAP * (len(places) - 1))
    for index in reversed(range(len(places))):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - _LABEL_GAP
    return places

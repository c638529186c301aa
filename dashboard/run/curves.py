"""The Curves tab: loss large on the left, the rest small on the right, one linked x-axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import streamlit as st

from bottleneck_core.figures.downsample import Range
from bottleneck_core.figures.marks import event_marks
from bottleneck_core.figures.palette import run_color
from bottleneck_core.figures.training import (
    gradient_figure,
    gradient_groups,
    learning_rate_figure,
    loss_figure,
    memory_figure,
    perplexity_figure,
    throughput_figure,
)
from bottleneck_core.figures.view import View, XAxis, XScale
from dashboard.kept import Kept
from dashboard.live_chart import Drawn, live_chart, zoomed_range
from dashboard.theme import theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from bottleneck_core import Run

# Heights of the small charts, up to four of them and more.
_SMALL, _SMALLER = 190, 158
_SMALL_COLUMNS = 400
# Room for the longest label, `attn_geo 0.4316`, so that the charts in a column share their x-axis.
_SMALL_RIGHT = 112
# Values to average over unless the reader says otherwise; of short curves less, see `default_smoothing`.
_SMOOTHING = 10
# Small charts of one column each, and the figures that draw them.
_OF_A_COLUMN: dict[str, tuple[str, Callable[..., go.Figure]]] = {
    "lr": ("lr", learning_rate_figure),
    "tok_s": ("tok_s", throughput_figure),
    "memory": ("device_peak_bytes", memory_figure),
}


@dataclass(frozen=True, kw_only=True)
class Charts:
    """What a run's values say of its charts: the axis, the least and greatest x, and the names of the small ones."""

    scale: XScale
    extent: Range | None
    small: tuple[str, ...]


def curve_controls(run: Run, drawn: Kept) -> View:
    """The switches above the curves; all of them are in the address."""
    with st.container(horizontal=True, vertical_alignment="center", gap="large"):
        smoothing = st.slider(
            "Smoothing",
            0.0,
            0.99,
            default_smoothing(run),
            0.01,
            key="smoothing",
            bind="query-params",
            width=220,
            help="Weight of the past in the exponential moving average; the raw values stay, faint.",
        )
        x_axis = st.segmented_control(
            "Horizontal axis",
            drawn.get("axes", lambda: _x_axes(run)),
            default="step",
            required=True,
            key="x",
            bind="query-params",
        )
        log_y = st.toggle("log axis", key="log", bind="query-params")
        all_values = st.toggle(
            "all values",
            key="all",
            bind="query-params",
            help="Otherwise the axis spans the 1st to the 99th percentile after the first 2 % of steps.",
        )
    return View(
        x_axis=cast("XAxis", x_axis or "step"),
        smoothing=smoothing,
        log_y=log_y,
        all_values=all_values,
        theme=theme(),
    )


def curves(run: Run, view: View, drawn: Kept) -> None:
    """Draws the charts of a run; again and again while it trains. `drawn` keeps those of the run as it is now."""
    charts = drawn.get(("charts", view.x_axis), lambda: _charts(run, view.x_axis))
    # Zoom is in the axis' units: another axis or unit is another group.
    group = f"{run.path}/{charts.scale.title}"
    large = replace(view, scale=charts.scale, x_range=zoomed_range(group), x_extent=charts.extent)
    small = replace(large, columns=_SMALL_COLUMNS, right=_SMALL_RIGHT)
    height = _SMALL if len(charts.small) <= 4 else _SMALLER
    tall = max(430, height * len(charts.small) + 16 * (len(charts.small) - 1))
    left, right = st.columns([3, 2], gap="medium")
    with left:
        figure = drawn.get(("loss", large, tall), lambda: Drawn.of(_loss(run, large, tall)))
        live_chart(figure, name="loss", group=group)
    with right:
        for name in charts.small:
            figure = drawn.get((name, small, height), lambda name=name: Drawn.of(_small(run, name, small, height)))
            live_chart(figure, name=name, group=group)


def _charts(run: Run, x_axis: XAxis) -> Charts:
    train, evaluations = run.train, run.eval
    scale = XScale.of(x_axis, train, evaluations)
    gradients = ["gradients"] if gradient_groups(train) else []
    others = [name for name, (column, _) in _OF_A_COLUMN.items() if _any(train, column)]
    return Charts(scale=scale, extent=scale.extent(train, evaluations), small=("perplexity", *gradients, *others))


def _loss(run: Run, view: View, height: int) -> go.Figure:
    train = run.train
    frames = {"train": train, **{kind: run.events.frame(kind) for kind in ("resume", "done")}}
    marks = event_marks(frames, view.scale_for(train))
    return loss_figure(train, run.eval, view, color=run_color(run.id, view.theme), marks=marks, height=height)


def _small(run: Run, name: str, view: View, height: int) -> go.Figure:
    train, color = run.train, run_color(run.id, view.theme)
    if name == "perplexity":
        return perplexity_figure(train, run.eval, view, color=color, height=height)
    if name == "gradients":
        return gradient_figure(train, view, height=height)
    return _OF_A_COLUMN[name][1](train, view, color=color, height=height)


def default_smoothing(run: Run) -> float:
    """The weight that averages over a fiftieth of the rows that the run will have, at most over ten."""
    steps, every = run.config.get("steps"), run.config.get("log_every")
    expected = steps / every if isinstance(steps, (int, float)) and isinstance(every, int) and every > 0 else 0
    window = min(max(expected, len(run.train)) / 50, _SMOOTHING)
    return round(1 - 1 / window, 2) if window > 1 else 0.0


def _x_axes(run: Run) -> list[str]:
    train = run.train
    return [
        "step",
        *(name for name, column in (("tokens", "tokens"), ("time", "time_s")) if _any(train, column)),
    ]


def _any(frame: pd.DataFrame, column: str) -> bool:
    return column in frame and bool(np.isfinite(frame[column].to_numpy(float)).any())

"""The Curves tab: loss large on the left, the rest small on the right, one linked x-axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import streamlit as st

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
from dashboard.live_chart import live_chart, zoomed_range
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


def curve_controls(run: Run) -> View:
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
            "Horizontal axis", _x_axes(run), default="step", required=True, key="x", bind="query-params"
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


def curves(run: Run, view: View) -> None:
    """Draws the charts of a run; again and again while it trains."""
    train, evaluations = run.train, run.eval
    scale = XScale.of(view.x_axis, train, evaluations)
    # Zoom is in the axis' units: another axis or unit is another group.
    group = f"{run.path}/{scale.title}"
    extent = scale.extent(train, evaluations)
    large = replace(view, scale=scale, x_range=zoomed_range(group), x_extent=extent)
    view = replace(large, columns=_SMALL_COLUMNS, right=_SMALL_RIGHT)
    color = run_color(run.id, view.theme)
    frames = {"train": train, **{kind: run.events.frame(kind) for kind in ("resume", "done")}}
    small: dict[str, Callable[[int], go.Figure]] = {
        "perplexity": lambda height: perplexity_figure(train, evaluations, view, color=color, height=height)
    }
    if gradient_groups(train):
        small["gradients"] = lambda height: gradient_figure(train, view, height=height)
    for name, column, figure in (
        ("lr", "lr", learning_rate_figure),
        ("tok_s", "tok_s", throughput_figure),
        ("memory", "device_peak_bytes", memory_figure),
    ):
        if _any(train, column):
            small[name] = partial(_small, figure, train, view, color)
    height = _SMALL if len(small) <= 4 else _SMALLER
    drawn = {name: figure(height) for name, figure in small.items()}
    left, right = st.columns([3, 2], gap="medium")
    with left:
        tall = max(430, height * len(drawn) + 16 * (len(drawn) - 1))
        marks = event_marks(frames, scale)
        live_chart(
            loss_figure(train, evaluations, large, color=color, marks=marks, height=tall),
            name="loss",
            group=group,
        )
    with right:
        for name, figure in drawn.items():
            live_chart(figure, name=name, group=group)


def _small(figure: Callable[..., go.Figure], train: pd.DataFrame, view: View, color: str, height: int) -> go.Figure:
    return figure(train, view, color=color, height=height)


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

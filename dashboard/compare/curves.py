"""The overlay: one metric of all compared runs, how it is looked at, and its numbers as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import pandas as pd
import streamlit as st

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from bottleneck_core.figures.compare import Line, Overlay, overlay_figure
from bottleneck_core.figures.curves import Series
from bottleneck_core.figures.moving_average import moving_average
from bottleneck_core.figures.seeds import BandKind, seed_band
from bottleneck_core.figures.smoothing import ema
from bottleneck_core.figures.tables import csv_text
from bottleneck_core.figures.view import View, XScale
from dashboard.compare.data import MADE, Compared, metric_columns
from dashboard.compare.groups import Group
from dashboard.kept import Same
from dashboard.live_chart import Drawn, live_chart, zoomed_range
from dashboard.markdown import escaped
from dashboard.theme import theme

XAxis = Literal["step", "tokens", "time", "FLOPs"]
X_AXES = ("step", "tokens", "time", "FLOPs")
EXPONENTIAL, MOVING = "exponential", "moving mean"
SCALES = LOG_X, LOG_Y, ALL_VALUES = ("log x", "log y", "all values")
# Rows that are averaged over; evaluations are averages already.
_STRENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_DEFAULT_STRENGTH = 10
_NAMED = 4
_FLOPS = XScale(column="flops", divisor=1, title="training compute (FLOPs)")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is drawn and how: the metric's column and frame, the x-axis, smoothing, the scales.

    `strength` counts rows that are `every` steps apart, the densest of all compared runs: of one that is logged more
    sparsely fewer rows are averaged, over the same steps.
    """

    metric: str
    kind: str
    x_axis: XAxis
    smoothing: str
    strength: int
    every: float
    band: BandKind
    log_x: bool
    log_y: bool
    all_values: bool

    def smoothed(self, values: np.ndarray, every: float) -> np.ndarray:
        """All rows, `every` steps apart, smoothed; an exponential average over n of them weighs the past by 1 - 1/n."""
        rows = max(1.0, self.strength * self.every / every)
        return moving_average(values, round(rows)) if self.smoothing == MOVING else ema(values, 1 - 1 / rows)


def curve_controls(runs: Sequence[Compared], band: BandKind) -> Look | None:
    """The switches above the overlay, all in the address; None where no run has a curve."""
    columns = metric_columns(runs)
    if not columns:
        st.info("None of these runs has logged a number yet: they appear here with their first step.")
        return None
    names = list(columns)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        metric = st.selectbox(
            "Metric",
            names,
            index=names.index("val_loss") if "val_loss" in names else 0,
            format_func=metric_label,
            key="metric",
            bind="query-params",
            width=240,
            help=metric_help(str(st.session_state.get("metric") or "val_loss")),
        )
        x_axis = st.segmented_control(
            "Horizontal axis", X_AXES, default="step", required=True, key="axis", bind="query-params"
        )
        smoothing = st.segmented_control(
            "Smoothing", [EXPONENTIAL, MOVING], default=EXPONENTIAL, required=True, key="smooth", bind="query-params"
        )
        kind = columns[metric]
        strength = st.select_slider(
            "Rows averaged",
            _STRENGTHS,
            value=_default_strength(runs, kind),
            key=f"rows_{kind}",
            bind="query-params",
            width=130,
            help="Logged values that the strong line averages over; the raw ones stay, faint. In runs that log less "
            "often it is as many as fall into the same steps. Smoothing sees all rows, thinning comes after it.",
        )
        scales = st.pills(
            "Scales",
            SCALES,
            selection_mode="multi",
            key="scales",
            bind="query-params",
            help="Without “all values” the vertical axis spans the 1st to the 99th percentile of what comes after the "
            "first 2 % of the horizontal axis.",
        )
    return Look(
        metric=metric,
        kind=kind,
        x_axis=cast("XAxis", x_axis or "step"),
        smoothing=smoothing or EXPONENTIAL,
        strength=int(strength),
        every=min(map(_every, (run.frames[kind] for run in runs)), default=1.0),
        band=band,
        log_x=LOG_X in scales,
        log_y=LOG_Y in scales,
        all_values=ALL_VALUES in scales,
    )


def overlay(groups: Sequence[Group], look: Look) -> None:
    """Draws the chart, what is missing from it in words, and the button for its numbers."""
    runs = [run for group in groups for run in group.runs]
    scale = scale_of(look, runs)
    zoom = f"compare/{scale.title}/{look.log_x}"
    view = View(log_y=look.log_y, all_values=look.all_values, x_range=zoomed_range(zoom), theme=theme())
    parts = tuple((group.name, len(group.runs)) for group in groups)
    drawn = MADE.get(("overlay", Same(runs), parts, look, view), lambda: _drawn(groups, look, scale, view))
    live_chart(drawn, name="overlay", group=zoom)
    with st.container(horizontal=True, vertical_alignment="top", horizontal_alignment="distribute"):
        st.caption(" ".join(remarks(groups, look, scale)) or " ", width="stretch")
        st.download_button(
            "Data",
            lambda: curve_csv(runs, look, scale),
            file_name=f"{look.metric}.csv",
            mime="text/csv",
            icon=":material/download:",
            type="tertiary",
            on_click="ignore",
            help="All rows of these curves, raw and smoothed, as CSV.",
        )


def _drawn(groups: Sequence[Group], look: Look, scale: XScale, view: View) -> Drawn:
    chart = Overlay(
        title=metric_label(look.metric) + _unit(look.metric),
        x_title=scale.title,
        format=_format(look.metric),
        hover_format=".4f" if "loss" in look.metric else ".5g",
        log_x=look.log_x,
    )
    return Drawn.of(overlay_figure(lines_of(groups, look, scale, view), view, chart))


def lines_of(groups: Sequence[Group], look: Look, scale: XScale, view: View) -> list[Line]:
    """A line a group: the smoothed curve over the raw one, or the mean of its runs' smoothed curves and their band."""
    lines = []
    for group in groups:
        color = group.color(view.theme)
        curves = [_curve(run, look, scale) for run in group.runs]
        if len(curves) == 1:
            x, y, raw = curves[0]
            line = Line(
                name=group.name,
                color=color,
                x=x,
                y=y,
                raw=None if np.array_equal(raw, y, equal_nan=True) else raw,
                dash=group.dash,
                points=look.kind != "train",
            )
        else:
            band = seed_band([(x, y) for x, y, _ in curves], look.band)
            name = f"{group.name} ({sum(bool(np.isfinite(y).any()) for _, y, _ in curves)})"
            line = Line(name=name, color=color, x=band.x, y=band.mean, low=band.low, high=band.high, dash=group.dash)
        lines.append(line)
    return lines


def remarks(groups: Sequence[Group], look: Look, scale: XScale) -> list[str]:
    """What the chart does not show, and what its lines are."""
    found = []
    if any(len(group.runs) > 1 for group in groups):
        found.append(f"Lines are means over runs, bands {_band_words(look.band)}, over the stretch that all runs have.")
    runs = [run for group in groups for run in group.runs]
    if look.x_axis == "FLOPs":
        unknown = [run for run in runs if run.flops_per_token is None]
        if unknown:
            found.append(f"The configuration does not tell the FLOPs of {_names(unknown)}.")
        runs = [run for run in runs if run.flops_per_token is not None]
    empty = [run for run in runs if not np.isfinite(_series(run, look, scale).y).any()]
    if empty:
        what = metric_label(look.metric).lower()
        found.append(f"Without {escaped(what)} on this axis: {_names(empty)}.")
    return found


def curve_csv(runs: Sequence[Compared], look: Look, scale: XScale) -> str:
    """All rows of the runs' curves: run, x, raw and smoothed value."""
    rows: list[list[object]] = []
    for run in runs:
        x, smoothed, raw = (values.tolist() for values in _curve(run, look, scale))
        rows += [[run.id, *row] for row in zip(x, raw, smoothed, strict=True)]
    return csv_text(["run", scale.title, look.metric, f"{look.metric}, smoothed"], rows)


def scale_of(look: Look, runs: Sequence[Compared]) -> XScale:
    """The x-axis for all of the runs."""
    if look.x_axis == "FLOPs":
        return _FLOPS
    return XScale.of(look.x_axis, *(run.frames[look.kind] for run in runs))


def metric_label(name: str) -> str:
    """What people call it."""
    metric = bc.METRICS.get(name)
    return metric.label if metric else name


def metric_help(name: str) -> str | None:
    """Its definition."""
    metric = bc.METRICS.get(name)
    of = bc.METRICS.get(name.removeprefix("attn_").removesuffix("_mean"))
    return " ".join(dict.fromkeys(m.definition for m in (of, metric) if m)) or None


def _curve(run: Compared, look: Look, scale: XScale) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, smoothed and raw values of all rows."""
    series = _series(run, look, scale)
    return series.x, look.smoothed(series.y, _every(run.frames[look.kind])), series.y


def _every(frame: pd.DataFrame) -> float:
    """Steps from row to row, as a rule."""
    steps = frame["step"].to_numpy(np.float64)
    return float(np.median(np.diff(steps))) or 1.0 if len(steps) > 1 else np.inf


def _default_strength(runs: Sequence[Compared], kind: str) -> int:
    """Training losses are averaged over a fiftieth of the longest curve, at most over ten rows; the rest is not."""
    most = max(len(run.frames[kind]) for run in runs) / 50 if kind == "train" else 1
    return max(n for n in _STRENGTHS if n <= max(1, min(most, _DEFAULT_STRENGTH)))


def _series(run: Compared, look: Look, scale: XScale) -> Series:
    frame = run.frames[look.kind]
    if scale is _FLOPS:
        per_token = np.nan if run.flops_per_token is None else run.flops_per_token
        frame = frame.assign(flops=frame["tokens"] * per_token) if "tokens" in frame else pd.DataFrame()
    return Series.of(frame, look.metric, scale, name=run.id, color="#000000")


def _names(runs: Sequence[Compared]) -> str:
    shown = [escaped(run.id) for run in runs[:_NAMED]]
    rest = len(runs) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _band_words(band: BandKind) -> str:
    return "from the least to the greatest" if band == "min to max" else "the 95 % interval of the mean (t)"


def _unit(name: str) -> str:
    metric = bc.METRICS.get(name)
    return f" ({metric.unit})" if metric and metric.unit not in ("", "1") else ""


def _format(name: str):
    if "loss" in name:
        return numbers.loss
    return numbers.perplexity if "ppl" in name else numbers.rate if name == "tok_s" else numbers.scalar

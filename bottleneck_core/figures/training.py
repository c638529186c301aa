"""Figures of one run's training: loss, perplexity, learning rate, gradient norms, throughput, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from . import numbers
from .curves import Chart, Series, curve_figure
from .marks import Mark
from .palette import categorical, ink
from .view import View, XScale

_GRADIENT_PREFIX = "grad_norm_"
# Total norms, by their names in our events and in older ones.
_TOTAL_NORMS = ("grad_clip_total_norm", "grad_norm_total")


def loss_figure(
    train: pd.DataFrame,
    evaluations: pd.DataFrame,
    view: View,
    *,
    color: str,
    marks: Sequence[Mark] = (),
    height: int = 430,
) -> go.Figure:
    """Training loss in the run's colour and validation loss in ink, its best value marked. Nats per token."""
    scale = view.scale_for(train, evaluations)
    return curve_figure(
        _pair("loss", "val_loss", train, evaluations, scale, view, color),
        scale,
        view,
        Chart(title="loss (nats per token)", format=numbers.loss, hover_format=".4f", height=height, marks=marks),
    )


def perplexity_figure(
    train: pd.DataFrame,
    evaluations: pd.DataFrame,
    view: View,
    *,
    color: str,
    height: int = 210,
    x_title: bool = False,
) -> go.Figure:
    """exp of the losses; from the losses themselves, so that it exists where a run did not store it."""
    scale = view.scale_for(train, evaluations)
    with np.errstate(over="ignore"):
        train = train.assign(ppl=np.exp(train["loss"])) if "loss" in train else train
        if "val_loss" in evaluations:
            evaluations = evaluations.assign(val_ppl=np.exp(evaluations["val_loss"]))
    return curve_figure(
        _pair("ppl", "val_ppl", train, evaluations, scale, view, color),
        scale,
        view,
        Chart(title="perplexity", format=numbers.perplexity, hover_format=".2f", height=height, x_title=x_title),
    )


def learning_rate_figure(
    train: pd.DataFrame, view: View, *, color: str, height: int = 210, x_title: bool = False
) -> go.Figure:
    """The learning rate of each step, from zero, as it was."""
    scale = view.scale_for(train)
    series = [Series.of(train, "lr", scale, name="lr", color=color)]
    chart = Chart(title="learning rate", height=height, x_title=x_title, y_floor=0.0, exponent="e")
    return curve_figure(series, scale, _linear(view), chart)


def throughput_figure(
    train: pd.DataFrame, view: View, *, color: str, height: int = 210, x_title: bool = False
) -> go.Figure:
    """Tokens per second over forward, backward and optimiser."""
    scale = view.scale_for(train)
    series = [Series.of(train, "tok_s", scale, name="tok/s", color=color, smooth=True)]
    chart = Chart(
        title="throughput (tokens per second)",
        format=numbers.rate,
        hover_format=".4s",
        height=height,
        x_title=x_title,
        y_floor=0.0,
    )
    return curve_figure(series, scale, _linear(view), chart)


def memory_figure(
    train: pd.DataFrame, view: View, *, color: str, height: int = 210, x_title: bool = False
) -> go.Figure:
    """The most device memory that was taken so far, in GiB, from zero. Column `device_peak_bytes`, bytes."""
    scale = view.scale_for(train)
    gib = train.assign(gib=train["device_peak_bytes"].to_numpy(np.float64) / 2**30) if len(train) else train
    series = [Series.of(gib, "gib", scale, name="peak", color=color)]
    chart = Chart(
        title="device memory (GiB, peak)",
        format=lambda value: numbers.size(value * 2**30),
        hover_format=".4f",
        height=height,
        x_title=x_title,
        y_floor=0.0,
    )
    return curve_figure(series, scale, _linear(view), chart)


def gradient_groups(train: pd.DataFrame) -> list[str]:
    """Gradient norms by parameter group; a group that the model lacks is 0 throughout and left out."""
    columns = [c for c in train if str(c).startswith(_GRADIENT_PREFIX) and c not in _TOTAL_NORMS]
    return [str(c) for c in columns if (train[c].to_numpy(np.float64) > 0).any()]


def gradient_figure(train: pd.DataFrame, view: View, *, height: int = 210, x_title: bool = False) -> go.Figure:
    """L2 norms of the gradients before clipping, by parameter group, and their total."""
    scale = view.scale_for(train)
    groups = gradient_groups(train)
    series = [
        Series.of(train, column, scale, name=column.removeprefix(_GRADIENT_PREFIX), color=color, smooth=True)
        for column, color in zip(groups, categorical(len(groups), view.theme), strict=True)
    ]
    total = next((c for c in _TOTAL_NORMS if c in train and np.isfinite(train[c].to_numpy(np.float64)).any()), None)
    if total:
        series.append(
            Series.of(train, total, scale, name="total", color=ink("text", view.theme), smooth=True, dash="dot")
        )
    chart = Chart(title="gradient norm", hover_format=".4g", height=height, x_title=x_title)
    return curve_figure(series, scale, view, chart)


def scalar_figure(
    frame: pd.DataFrame,
    column: str,
    view: View,
    *,
    color: str,
    title: str | None = None,
    height: int = 240,
    x_title: bool = True,
    smooth: bool = True,
    points: bool = False,
) -> go.Figure:
    """Any numeric column of a run's frame, always on a linear axis."""
    scale = view.scale_for(frame)
    series = [Series.of(frame, column, scale, name=title or column, color=color, smooth=smooth, points=points)]
    return curve_figure(series, scale, _linear(view), Chart(title=title or column, height=height, x_title=x_title))


def _pair(
    train_column: str,
    val_column: str,
    train: pd.DataFrame,
    evaluations: pd.DataFrame,
    scale: XScale,
    view: View,
    color: str,
) -> list[Series]:
    return [
        Series.of(train, train_column, scale, name="train", color=color, smooth=True),
        Series.of(evaluations, val_column, scale, name="val", color=ink("text", view.theme), points=True, best=True),
    ]


def _linear(view: View) -> View:
    """The log switch is for losses and norms; a rate of zero has no place on a log axis."""
    return replace(view, log_y=False)

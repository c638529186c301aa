"""The section on loss curves: training and validation loss of all runs over each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from bottleneck_core.figures import numbers
from bottleneck_core.figures.compare import Line, Overlay, overlay_figure
from bottleneck_core.figures.curves import Series
from bottleneck_core.figures.labels import text_width
from bottleneck_core.figures.seeds import seed_band
from bottleneck_core.figures.smoothing import ema
from bottleneck_core.figures.static_sheet import Sheet
from bottleneck_core.figures.tables import html_text
from bottleneck_core.figures.view import View, XScale

from .document import Block, Paragraph, Picture, Section, listed
from .groups import Group
from .reported import Reported, known_values

# Direct labels at the lines' ends up to here; above, a legend.
_DIRECT_LABELS = 6
_LEGEND_LINE = 17
_WIDTH = 900
_MOST_ROWS = 10
# A series has a colour, but the line that it becomes has one of its own.
_UNDRAWN = "#000000"

_SMOOTHED = (
    " Strong lines are exponential averages over {} logged rows of the run that logs most often, and over as many "
    "steps of the others."
)
_BAND = "95 % interval"


def curves_section(groups: Sequence[Group], smooth: int | None) -> Section:
    """Validation and training loss. `smooth` counts the training rows that a strong line averages over."""
    runs = [run for group in groups for run in group.runs]
    scale = scale_of(runs)
    rows = default_rows(runs) if smooth is None else smooth
    blocks: list[Block] = []
    if any(len(group.runs) > 1 for group in groups):
        blocks.append(
            Paragraph(
                text="Lines of several seeds are means with the 95 % interval of the mean (Student's t), over the "
                "stretch that all of them have."
            )
        )
    if scale.column == "tokens":
        blocks.append(
            Paragraph(text="The runs take different numbers of tokens a step: the horizontal axis is tokens.")
        )
    titles = {"eval": ("val_loss", "validation loss"), "train": ("loss", "training loss")}
    for kind, (column, title) in titles.items():
        having = [group for group in groups if _has(group, kind, column)]
        without = [run.id for run in runs if not len(known_values(run.frames[kind], column))]
        if having:
            averaged = rows if kind == "train" else 1
            figure = overlay(having, kind, column, scale, title=f"{title} (nats per token)", rows=averaged)
            name = f"{title.replace(' ', '-')}"
            smoothed = _SMOOTHED.format(averaged) if averaged > 1 else ""
            blocks.append(
                Picture(
                    sheet=Sheet(name=name, title=title.capitalize(), rows=[[figure]], widths=[_WIDTH]),
                    caption=f"{title.capitalize()} of {listed([group.label for group in having])}.{smoothed} The "
                    "vertical axis spans the 1st to the 99th percentile of what comes after the first 2 %.",
                )
            )
        if without:
            blocks.append(Paragraph(text=f"Without a {title} curve: {listed(without)}."))
    return Section(title="Curves", blocks=blocks)


def overlay(
    groups: Sequence[Group],
    kind: str,
    column: str,
    scale: XScale,
    *,
    title: str,
    rows: int = 1,
    height: int = 420,
    format: Callable[[float], str] = numbers.loss,
) -> go.Figure:
    """One column of a frame of all groups, a line each; smoothed over `rows` rows of the run that logs most often."""
    steps = rows * min(_every(run.frames[kind]) for group in groups for run in group.runs)
    lines = [_line(group, kind, column, scale, steps) for group in groups]
    view = View(scale=scale)
    legend = len(lines) > _DIRECT_LABELS
    tall = max(height, 90 + _LEGEND_LINE * len(lines)) if legend else height
    chart = Overlay(title=title, x_title=scale.title, format=format, hover_format=".4f", height=tall)
    figure = overlay_figure(lines, view, chart)
    if legend:
        _name_lines(figure, lines)
    return figure


def scale_of(runs: Sequence[Reported]) -> XScale:
    """Steps where a step is the same number of tokens in all runs, else tokens where all runs count them."""
    frames = [frame for run in runs for frame in (run.frames["train"], run.frames["eval"]) if len(frame)]
    counted = all(len(known_values(frame, "tokens")) for frame in frames)
    a_step = {round(ratio, 3) for run in runs if (ratio := _tokens_a_step(run.frames["train"])) is not None}
    return XScale.of("tokens" if counted and len(a_step) > 1 else "step", *frames)


def default_rows(runs: Sequence[Reported]) -> int:
    """A fiftieth of the longest curve, at most ten rows."""
    longest = max((len(run.frames["train"]) for run in runs), default=0)
    return max(1, min(_MOST_ROWS, longest // 50))


def _line(group: Group, kind: str, column: str, scale: XScale, steps: float) -> Line:
    curves = [_curve(run, kind, column, scale, steps) for run in group.runs]
    common: Any = {"name": group.label, "color": group.color, "dash": group.dash}
    if len(curves) == 1:
        x, y, raw = curves[0]
        behind = None if np.array_equal(raw, y, equal_nan=True) else raw
        return Line(x=x, y=y, raw=behind, points=kind != "train", **common)
    band = seed_band([(x, y) for x, y, _ in curves], _BAND)
    return Line(x=band.x, y=band.mean, low=band.low, high=band.high, **common)


def _curve(
    run: Reported, kind: str, column: str, scale: XScale, steps: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """x, values smoothed over so many steps, and raw values of all rows."""
    series = Series.of(run.frames[kind], column, scale, name=run.id, color=_UNDRAWN)
    rows = max(1.0, steps / _every(run.frames[kind]))
    return series.x, ema(series.y, 1 - 1 / rows), series.y


def _every(frame: pd.DataFrame) -> float:
    """Steps from row to row, as a rule; endless where there are no two rows."""
    steps = frame["step"].to_numpy(np.float64)
    return float(np.median(np.diff(steps))) or 1.0 if len(steps) > 1 else math.inf


def _name_lines(figure: go.Figure, lines: Sequence[Line]) -> None:
    """A legend for more lines than can be labelled; bands and raw values are not listed."""
    names = {html_text(line.name) for line in lines}
    figure.for_each_trace(lambda trace: trace.update(showlegend=trace.name in names))
    wide = 44 + max(text_width(name) for name in names)
    figure.update_layout(
        showlegend=True,
        legend={"orientation": "v", "x": 1.01, "y": 1, "font": {"size": 12}},
        margin={"r": min(wide, _WIDTH / 2)},
    )


def _has(group: Group, kind: str, column: str) -> bool:
    return any(len(known_values(run.frames[kind], column)) for run in group.runs)


def _tokens_a_step(train: pd.DataFrame) -> float | None:
    """Tokens that a step takes, over the whole curve."""
    if len(train) < 2 or not len(known_values(train, "tokens")):
        return None
    steps, tokens = train["step"].to_numpy(np.float64), train["tokens"].to_numpy(np.float64)
    span = steps[-1] - steps[0]
    ratio = (tokens[-1] - tokens[0]) / span if span > 0 else math.nan
    return float(ratio) if math.isfinite(ratio) else None

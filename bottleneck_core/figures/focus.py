"""One head over training among the others of its layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from . import numbers
from .curves import Chart, Series, curve_figure
from .downsample import visible_rows
from .palette import ink, translucent
from .view import View, XScale

_STEPS = XScale(column="step", divisor=1, title="step")
# Faint lines say where the others are: a few hundred points each do, of however many steps.
_FAINT_COLUMNS = 60


@dataclass(frozen=True, kw_only=True)
class Focus:
    """One run's lines: `values` (S, N) over `steps` (S), of which `chosen` is strong; `names` (N) for hovering.

    `at` is the step that is looked at.
    """

    name: str
    color: str
    steps: NDArray
    values: NDArray
    chosen: int
    names: Sequence[str]
    at: int


def focus_figure(
    runs: Sequence[Focus], view: View, *, title: str, baseline: float | None = None, height: int = 340
) -> go.Figure:
    """The chosen line of each run strong, the others faint, a dashed `baseline`, marks at the steps looked at."""
    several = len(runs) > 1
    faint: list[Series] = []
    strong: list[Series] = []
    for run in runs:
        x = np.asarray(run.steps, dtype=np.float64)
        for i, name in enumerate(run.names):
            y = run.values[:, i].astype(np.float64)
            full = f"{run.name}, {name}" if several else name
            if i == run.chosen:
                label = run.name if several else name
                strong.append(Series(name=label, x=x, y=y, color=run.color, points=True))
            else:
                rows = visible_rows(x, y, _FAINT_COLUMNS, view.x_range)
                color = translucent(run.color, 0.3)
                faint.append(Series(name=full, x=x[rows], y=y[rows], color=color, label=False))
    if baseline is not None and strong:
        ends = np.array([min(s.x[0] for s in strong), max(s.x[-1] for s in strong)], dtype=np.float64)
        color = ink("muted", view.theme)
        strong.append(Series(name="uniform", x=ends, y=np.full(2, baseline), color=color, dash="dash"))
    chart = Chart(title=title, format=numbers.scalar, hover_format=".4f", height=height)
    figure = curve_figure([*faint, *strong], _STEPS, view, chart)
    marks = [
        {
            "type": "line",
            "x0": at,
            "x1": at,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": ink("muted", view.theme), "width": 1, "dash": "dot"},
        }
        for at in dict.fromkeys(run.at for run in runs)
    ]
    figure.update_layout(shapes=marks, hovermode="closest")
    return figure

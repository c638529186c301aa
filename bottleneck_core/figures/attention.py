"""Attention metrics over training: one line per layer or head, and the layer x head map of one step.

Values are (S, L, H): probe steps, layers, heads. A head that was not measured is NaN.
"""

from __future__ import annotations

import warnings

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from . import numbers
from .curves import Chart, ColorBar, Series, curve_figure
from .layout import axis, axis_title, base_layout, note
from .palette import Theme, depth_colors, ink, sequential
from .view import View, XScale

# More lines than these get a colour bar; with the uniform one there is room for six labels.
_LABELLED = 5
_STEPS = XScale(column="step", divisor=1, title="step")


def layer_lines(
    steps: NDArray,
    values: NDArray,
    view: View,
    *,
    title: str,
    baseline: float | None = None,
    height: int = 340,
) -> go.Figure:
    """The mean over the measured heads of each layer. `values` (S, L, H); `baseline` is drawn dashed."""
    with warnings.catch_warnings():  # a layer without a measured head has no mean, and no line
        warnings.simplefilter("ignore", RuntimeWarning)
        means = np.nanmean(values, axis=2) if values.size else np.empty((len(steps), 0))
    return _lines(steps, means, view, "layer", title, baseline, height)


def head_lines(
    steps: NDArray,
    values: NDArray,
    layer: int,
    view: View,
    *,
    title: str,
    baseline: float | None = None,
    height: int = 340,
) -> go.Figure:
    """The heads of one layer. `values` (S, L, H). Raises IndexError for a layer that is not there."""
    return _lines(steps, values[:, layer, :], view, "head", title, baseline, height)


def head_map(
    values: NDArray,
    *,
    title: str,
    unit: str,
    limits: tuple[float, float] | None = None,
    chosen: tuple[int, int] | None = None,
    theme: Theme = "light",
    height: int = 340,
) -> go.Figure:
    """`values` (L, H) of one step as a map; layer 0 at the top; x is the head, y the layer.

    `limits` fix the colours' range, for maps seen beside or after each other; `chosen` (layer, head) is framed.
    """
    layers, heads = values.shape
    layout = base_layout(theme, title=title, height=height, right=88)
    layout["hovermode"] = "closest"
    layout["xaxis"] = axis(
        theme, title=axis_title(theme, "head"), showgrid=False, dtick=_tick(heads), constrain="domain"
    )
    layout["yaxis"] = axis(
        theme, title=axis_title(theme, "layer"), showgrid=False, dtick=_tick(layers), autorange="reversed"
    )
    if not np.isfinite(values).any():
        layout["annotations"] = [note(theme, "no values yet")]
    heatmap = {
        "type": "heatmap",
        "z": values.astype(np.float32),
        "colorscale": sequential(theme),
        "colorbar": {"title": {"text": unit, "side": "right"}, "thickness": 10, "outlinewidth": 0, "len": 1},
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertemplate": "layer %{y}, head %{x}<br>%{z:.4f} " + unit + "<extra></extra>",
    }
    if limits is not None:
        heatmap |= {"zmin": limits[0], "zmax": limits[1]}
    if chosen is not None:
        layer, head = chosen
        frame = {"color": ink("text", theme), "width": 2.5}
        box = {"x0": head - 0.5, "x1": head + 0.5, "y0": layer - 0.5, "y1": layer + 0.5}
        layout["shapes"] = [{"type": "rect", **box, "line": frame}]
    return go.Figure([heatmap], layout)


def uniform_value(metric: str, tokens: int, *, null: bool, top_k: int = 8, window: int = 32) -> float | None:
    """What `metric` is where every query of a window of `tokens` attends evenly to all keys it sees.

    Query q sees q + 1 keys and, with `null`, one more. None for metrics without such a value.
    """
    if tokens < 1:
        return None
    q = np.arange(tokens, dtype=np.float64)
    visible = q + 1 + null
    per_query = {
        "entropy": np.log(visible),
        "entropy_norm": (visible > 1).astype(np.float64),
        "topk_mass": np.minimum(top_k, visible) / visible,
        "local_mass": (np.minimum(window, q) + 1) / visible,
        "null_mass": np.full(tokens, float(null)) / visible,
        "sink_mass": 1 / visible,
        "prev_mass": 1 / visible[1:],
        "distance": q * (q + 1) / 2 / visible,
    }.get(metric)
    return float(per_query.mean()) if per_query is not None and len(per_query) else None


def _lines(
    steps: NDArray, values: NDArray, view: View, what: str, title: str, baseline: float | None, height: int
) -> go.Figure:
    """`values` (S, N) as N lines, coloured along a ramp."""
    x = np.asarray(steps, dtype=np.float64)
    n = values.shape[1]
    colors = depth_colors(n, view.theme)
    many = n > _LABELLED
    series = [
        Series(
            name=f"{what} {i}",
            x=x,
            y=values[:, i].astype(np.float64),
            color=color,
            smooth=True,
            points=True,
            label=not many,
        )
        for i, color in enumerate(colors)
    ]
    if baseline is not None and len(x):
        ends = np.array([x[0], x[-1]])
        color = ink("muted", view.theme)
        series.append(Series(name="uniform", x=ends, y=np.full(2, baseline), color=color, dash="dash"))
    bar = ColorBar(title=what, colors=colors) if many else None
    chart = Chart(title=title, format=numbers.scalar, hover_format=".4f", height=height, color_bar=bar)
    return curve_figure(series, _STEPS, view, chart)


def _tick(n: int) -> int:
    """A label for every row up to 16, then for every second or fourth."""
    return 1 if n <= 16 else 2 if n <= 32 else 4

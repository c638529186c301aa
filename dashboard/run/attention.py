"""The Attention tab: each metric over steps by layer and head, and the last probe as a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

import bottleneck_core as bc
from bottleneck_core.figures.attention import head_lines, head_map, layer_lines, uniform_value
from bottleneck_core.figures.palette import run_color
from bottleneck_core.figures.training import scalar_figure
from bottleneck_core.figures.view import View
from dashboard.kept import Kept
from dashboard.live_chart import Drawn, live_chart, zoomed_range
from dashboard.theme import theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from bottleneck_core import Run

# What is shown unless asked otherwise.
_HEADLINE = ("entropy", "local_mass", "topk_mass", "null_mass")
_ALL_LAYERS = "all layers"


def attention(run: Run, drawn: Kept) -> None:
    """Draws the tab: from analysis.h5, else from the means in the analysis events, else says so.

    `drawn` keeps what was drawn of the run as it is now.
    """
    # A file that is not there yet is no change of the run when it comes.
    probed = len(run.attention_steps) > 0
    measured = drawn.get("attention metrics", lambda: attention_metrics(run)) if probed else []
    if measured:
        _by_layer_and_head(run, measured, drawn)
    elif means := mean_metrics(run):
        st.caption("This run stored means over layers and heads only (it has no readable analysis.h5).")
        _means(run, means)
    else:
        st.info("This run has no attention metrics: `--instrument medium` or `full` records them.")


def attention_metrics(run: Run) -> list[str]:
    """Metrics of analysis.h5 that hold a value, the headline ones first."""
    if not len(run.attention_steps):
        return []
    names = run.analysis_file.attn_metrics
    order = [*_HEADLINE, *(name for name in bc.METRICS if name not in _HEADLINE)]
    found = sorted(names, key=lambda name: order.index(name) if name in order else len(order))
    return [name for name in found if np.isfinite(run.attention(name)).any()]


def mean_metrics(run: Run) -> list[str]:
    """Numeric columns of the analysis events that hold a value."""
    frame = run.analysis
    skipped = {"step", "tokens", "time_s"}
    numeric = [str(c) for c in frame if c not in skipped and frame[c].dtype.kind == "f"]
    known = [c for c in numeric if np.isfinite(frame[c].to_numpy()).any()]
    order = list(bc.METRICS)
    return sorted(known, key=lambda c: order.index(c) if c in order else len(order))


def _by_layer_and_head(run: Run, measured: list[str], drawn: Kept) -> None:
    layers = drawn.get("layers", lambda: run.attention(measured[0]).shape[1])
    if "clicked_layer" in st.session_state:  # a widget's value can be set before it is drawn only
        st.session_state["layer"] = f"layer {st.session_state.pop('clicked_layer')}"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        shown = st.multiselect(
            "Metrics",
            measured,
            default=[name for name in _HEADLINE if name in measured] or measured[:4],
            format_func=_label,
            key="metrics",
            bind="query-params",
        )
        lines = st.selectbox(
            "Lines",
            [_ALL_LAYERS, *(f"layer {i}" for i in range(layers))],
            key="layer",
            bind="query-params",
            width=220,
            help="All layers: the mean over each layer's heads. One layer: its heads. Or click on a map.",
        )
    layer = None if lines == _ALL_LAYERS else int(lines.removeprefix("layer "))
    group = f"{run.path}/attention"
    view = View(x_range=zoomed_range(group), theme=theme())
    for name in shown:
        metric = bc.METRICS.get(name)
        st.markdown(f"**{_label(name)}** &nbsp; :gray[{metric.definition if metric else ''}]")
        left, right = st.columns([3, 2], gap="medium")
        unit = metric.unit if metric else ""
        with left:
            key = (name, "lines", layer, view)
            figure = drawn.get(key, lambda name=name, unit=unit: Drawn.of(_lines(run, name, unit, layer, view)))
            live_chart(figure, name=f"{name}-lines", group=group)
        with right:
            key = (name, "map", view.theme)
            figure = drawn.get(key, lambda name=name, unit=unit: Drawn.of(_map(run, name, unit)))
            live_chart(figure, name=f"{name}-map", group=f"{group}/{name}-map", on_click=_choose_layer)


def _lines(run: Run, name: str, unit: str, layer: int | None, view: View) -> go.Figure:
    steps, values = run.attention_steps, run.attention(name)
    title = f"{unit}, mean over heads" if layer is None else f"{unit}, heads of layer {layer}"
    options: Any = {"title": title, "baseline": _uniform(run, name), "height": 300}
    if layer is None:
        return layer_lines(steps, values, view, **options)
    return head_lines(steps, values, layer, view, **options)


def _map(run: Run, name: str, unit: str) -> go.Figure:
    title = f"step {int(run.attention_steps[-1]):,}"
    return head_map(run.attention(name)[-1], title=title, unit=unit, theme=theme(), height=300)


def _choose_layer(point: dict[str, Any]) -> None:
    st.session_state["clicked_layer"] = int(point["y"])


def _means(run: Run, names: list[str]) -> None:
    group = f"{run.path}/analysis"
    view = View(x_range=zoomed_range(group), right=64, theme=theme())
    color = run_color(run.id, view.theme)
    cells = st.columns(2, gap="medium")
    for i, name in enumerate(names):
        mean, of = bc.METRICS.get(name), bc.METRICS.get(name.removeprefix("attn_").removesuffix("_mean"))
        with cells[i % 2]:
            title = f"{mean.label} ({mean.unit})" if mean else name
            figure = scalar_figure(run.analysis, name, view, color=color, title=title, smooth=False, points=True)
            live_chart(figure, name=name, group=group)
            st.caption(" ".join(metric.definition for metric in (of, mean) if metric))


def _uniform(run: Run, metric: str) -> float | None:
    config = run.config
    block, probed = config.get("block_size"), config.get("analysis_max_tokens")
    if not isinstance(block, int) or not isinstance(probed, int):
        return None
    return uniform_value(
        metric,
        min(block, probed),
        null=bool(config.get("null_attn")),
        top_k=int(config.get("analysis_topk") or 8),
        window=int(config.get("analysis_local_window") or 32),
    )


def _label(name: str) -> str:
    metric = bc.METRICS.get(name)
    return metric.label if metric else name

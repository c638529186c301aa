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
from dashboard.live_chart import live_chart, zoomed_range
from dashboard.theme import theme

if TYPE_CHECKING:
    from bottleneck_core import Run

# What is shown unless asked otherwise.
_HEADLINE = ("entropy", "local_mass", "topk_mass", "null_mass")
_ALL_LAYERS = "all layers"


def attention(run: Run) -> None:
    """Draws the tab: from analysis.h5, else from the means in the analysis events, else says so."""
    measured = attention_metrics(run)
    if measured:
        _by_layer_and_head(run, measured)
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


def _by_layer_and_head(run: Run, measured: list[str]) -> None:
    layers = run.attention(measured[0]).shape[1]
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
    steps = run.attention_steps
    group = f"{run.path}/attention"
    view = View(x_range=zoomed_range(group), theme=theme())
    for name in shown:
        values = run.attention(name)
        metric = bc.METRICS.get(name)
        st.markdown(f"**{_label(name)}** &nbsp; :gray[{metric.definition if metric else ''}]")
        left, right = st.columns([3, 2], gap="medium")
        unit = metric.unit if metric else ""
        with left:
            title = f"{unit}, mean over heads" if layer is None else f"{unit}, heads of layer {layer}"
            options: Any = {"title": title, "baseline": _uniform(run, name), "height": 300}
            figure = (
                layer_lines(steps, values, view, **options)
                if layer is None
                else head_lines(steps, values, layer, view, **options)
            )
            live_chart(figure, name=f"{name}-lines", group=group)
        with right:
            title = f"step {int(steps[-1]):,}"
            figure = head_map(values[-1], title=title, unit=unit, theme=view.theme, height=300)
            live_chart(figure, name=f"{name}-map", group=f"{group}/{name}-map", on_click=_choose_layer)


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

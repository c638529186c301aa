"""What the Attention page draws of one run, or of two beside each other, at one step."""

from __future__ import annotations

import html
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from bottleneck_core.figures.attention import head_map
from bottleneck_core.figures.focus import Focus, focus_figure
from bottleneck_core.figures.palette import ink, run_color
from bottleneck_core.figures.view import View
from dashboard.attention import playback as attention_playback
from dashboard.attention.data import Head, Probed, baseline, per_layer, value_limits, values_of
from dashboard.kept import Kept
from dashboard.live_chart import Drawn, live_chart, zoomed_range
from dashboard.markdown import escaped
from dashboard.theme import theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

LAYER, HEAD = "layer", "head"
# What the page drew last, of all runs and for all readers; keys hold the stamps of what is drawn.
DRAWN = Kept(64)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One run as it is shown: at the probe with index `probe`, in `color`."""

    run: Probed
    probe: int
    color: str

    @property
    def step(self) -> int:
        return int(self.run.steps[self.probe])

    @property
    def mark(self) -> tuple[Hashable, ...]:
        """Changes with what there is to draw of it."""
        return (self.run.path, self.run.id, self.run.stamp, self.probe, self.color)


def sides_of(runs: Sequence[Probed], probe: int) -> list[Side]:
    """The first run at a probe, the others at those nearest to its step."""
    step = int(runs[0].steps[probe])
    colors = [run_color(run.id, theme()) for run in runs]
    if len(colors) > 1 and colors[1] == colors[0]:
        colors[1] = ink("text", theme())
    probes = [probe, *(run.nearest(step) for run in runs[1:])]
    return [Side(run=r, probe=p, color=c) for r, p, c in zip(runs, probes, colors, strict=True)]


def plain(name: str) -> str:
    """A run's name for figures, which take some HTML and `%{...}` for instructions."""
    return html.escape(name, quote=False).replace("%{", "% {")


def choose_head(layer: int, head: int | None) -> None:
    """Shows another head from the next rerun on; for callbacks."""
    st.session_state[LAYER] = layer
    if head is not None:
        st.session_state[HEAD] = head


def head_controls(shape: tuple[int, int]) -> Head:
    """Draws the choice of layer and head of a model with `shape` (layers, heads)."""
    layers, heads = shape
    layer = st.selectbox("Layer", range(layers), key=LAYER, bind="query-params", width=90)
    head = st.selectbox("Head", range(heads), key=HEAD, bind="query-params", width=90)
    return layer or 0, head or 0


def shape_of(run: Probed, metric: str) -> tuple[int, int]:
    """Layers and heads, from a metric of heads where the file has one."""
    of_heads = next((name for name in run.metrics if not per_layer(name)), metric)
    return values_of(run, of_heads).shape[1:3]


def heat_maps(sides: Sequence[Side], metric: str, chosen: Head) -> None:
    """Layer by head, one map a run in the same colours; a click chooses the head."""
    limits = value_limits([side.run for side in sides], metric)
    known = bc.METRICS[metric]
    for side, column in zip(sides, st.columns(len(sides), gap="medium"), strict=True):
        with column:
            if metric not in side.run.metrics:
                st.info(f"{escaped(side.run.id)} did not record {known.label[0].lower() + known.label[1:]}.")
                continue
            layers = per_layer(metric)
            key = ("heads", side.mark, len(sides), metric, chosen, limits, theme())
            figure = DRAWN.get(key, lambda side=side: Drawn.of(_heat_map(side, sides, metric, chosen, limits)))

            def clicked(point: dict[str, Any], layers: bool = layers) -> None:
                choose_head(int(point["y"]), None if layers else int(point["x"]))

            name = f"heads-{sides.index(side)}"
            live_chart(figure, name=name, group=f"{side.run.path}/attention/{name}/{metric}", on_click=clicked)


def lines(sides: Sequence[Side], metric: str, chosen: Head) -> None:
    """The chosen head over steps, its layer's others faint; a click on a line chooses its step."""
    group = f"{sides[0].run.path}/attention"
    view = View(x_range=zoomed_range(group), theme=theme(), columns=200)
    uniform = baseline(sides[0].run, metric)
    key = ("lines", tuple(side.mark for side in sides), metric, chosen, uniform, view)
    figure = DRAWN.get(key, lambda: Drawn.of(_lines(sides, metric, chosen, uniform, view)))

    def clicked(point: dict[str, Any]) -> None:
        attention_playback.go_to(int(point["x"]))

    live_chart(figure, name=f"lines-{metric}", group=group, on_click=clicked)


def _heat_map(
    side: Side, sides: Sequence[Side], metric: str, chosen: Head, limits: tuple[float, float] | None
) -> go.Figure:
    values, layers = values_of(side.run, metric)[side.probe], per_layer(metric)
    cell = (chosen[0], 0) if layers else chosen
    figure = head_map(
        values,
        title=titled(side, sides, f"step {side.step:,}"),
        unit=bc.METRICS[metric].unit,
        limits=limits,
        chosen=cell if cell[0] < values.shape[0] and cell[1] < values.shape[1] else None,
        theme=theme(),
        height=340,
    )
    if layers:
        figure.update_xaxes(showticklabels=False, title_text="one value a layer")
    return figure


def _lines(sides: Sequence[Side], metric: str, chosen: Head, uniform: float | None, view: View) -> go.Figure:
    known, layers = bc.METRICS[metric], per_layer(metric)
    what = "layer" if layers else "head"
    focused = []
    for side in sides:
        values = values_of(side.run, metric) if metric in side.run.metrics else np.empty((0, 0, 0))
        if chosen[0] >= values.shape[1] or (not layers and chosen[1] >= values.shape[2]):
            continue
        line = values[:, :, 0] if layers else values[:, chosen[0], :]
        focused.append(
            Focus(
                name=plain(side.run.id),
                color=side.color,
                steps=side.run.steps,
                values=line,
                chosen=chosen[0] if layers else chosen[1],
                names=[f"{what} {i}" for i in range(line.shape[1])],
                at=side.step,
            )
        )
    place = f"layer {chosen[0]}" if layers else f"layer {chosen[0]} head {chosen[1]}"
    title = f"{known.label} of {place} ({known.unit})"
    return focus_figure(focused, view, title=title, baseline=uniform)


def difference(first: Side, second: Side, metric: str, chosen: Head) -> str:
    """The chosen head in both runs and the means over all heads, in words; Markdown."""
    known = bc.METRICS[metric]
    names = [escaped(side.run.id) for side in (first, second)]
    if metric not in second.run.metrics or metric not in first.run.metrics:
        return f"{known.label} is not in both runs."
    values = [values_of(side.run, metric)[side.probe] for side in (first, second)]
    layer, head = chosen[0], 0 if per_layer(metric) else chosen[1]
    place = f"Layer {layer}" if per_layer(metric) else f"Layer {layer} head {head}"
    cells = [float(v[layer, head]) if layer < v.shape[0] and head < v.shape[1] else np.nan for v in values]
    steps = f"step {first.step:,}"
    if second.step != first.step:
        steps += f" (nearest of {names[1]}: step {second.step:,})"
    sentences = [f"At {steps}, {place.lower()}: {_against(cells, known.unit, names)}"]
    means = [_mean(v) for v in values]
    sentences.append(
        f"Mean over {'layers' if per_layer(metric) else 'all heads'}: {_against(means, known.unit, names)}"
    )
    return "  \n".join(sentences)


def _against(values: Sequence[float], unit: str, names: Sequence[str]) -> str:
    words = f"**{numbers.scalar(values[0])}** against **{numbers.scalar(values[1])}** {unit}"
    if not np.isfinite(values).all():
        missing = " and ".join(name for name, value in zip(names, values, strict=True) if not np.isfinite(value))
        return f"{words}; not measured in {missing}."
    by = values[1] - values[0]
    change = f"{numbers.scalar(abs(by))} {'more' if by > 0 else 'less'}" if by else "the same"
    return f"{words}: {change} in {names[1]}."


def _mean(values: NDArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def titled(side: Side, sides: Sequence[Side], text: str) -> str:
    """A figure's title, with the run's name where there are two."""
    return f"{plain(side.run.id)}: {text}" if len(sides) > 1 else text[0].upper() + text[1:]

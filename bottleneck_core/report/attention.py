"""The section on attention: means of all runs over each other, then each run by layer and head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bottleneck_core.figures import numbers
from bottleneck_core.figures.attention import head_lines, head_map, layer_lines
from bottleneck_core.figures.maps import Tokens, attention_map_figure, null_shares
from bottleneck_core.figures.static_sheet import Sheet
from bottleneck_core.figures.tables import html_text
from bottleneck_core.figures.view import View, XScale
from bottleneck_core.store.metrics import METRICS

from .curves import overlay
from .document import Block, Bullets, Paragraph, Picture, Section, Table, listed
from .groups import Group
from .probes import DIAGNOSTICS, Probes, map_of, mean_curve, probes_of
from .reported import Reported, known_values

_STEPS = XScale(column="step", divisor=1, title="step")
_OVERLAY_WIDTH, _OVERLAY_HEIGHT = 680, 300
_LINES_WIDTH, _MAP_WIDTH, _ROW_HEIGHT = 640, 420, 250
# Small multiples: layers side by side, of deeper models a choice from the first to the last.
_MOST_LAYERS, _HEADS_WIDTH, _HEADS_HEIGHT = 6, 250, 200
_STORED_WIDTH, _STORED_HEIGHT, _STORED_BOTTOM, _STORED_LABELS = 720, 590, 66, 16
_MOST_ALARMS = 10

Means = Mapping[str, Mapping[str, pd.DataFrame]]  # run -> metric -> steps and means


def attention_section(groups: Sequence[Group]) -> Section:
    """Everything that the runs measured of their attention, and which of them measured nothing."""
    runs = [run for group in groups for run in group.runs]
    found = {run.id: probes_of(run) for run in runs}
    probes = {id: read for id, read in found.items() if isinstance(read, Probes)}
    means = {run.id: {m: mean_curve(run, probes.get(run.id), m) for m in DIAGNOSTICS} for run in runs}
    measured = [run for run in runs if any(len(known_values(f, m)) for m, f in means[run.id].items())]
    blocks: list[Block] = []
    if measured:
        blocks.append(_last_probes(measured, means))
        blocks.append(_overlays(groups, means))
    absent = []
    for run in runs:
        reason = found[run.id]
        if isinstance(reason, str):
            rest = "means over layers and heads are from its events" if run in measured else "no means either"
            absent.append(f"{run.id}: {reason}; {rest}.")
    blocks += [Paragraph(text="What was not measured:"), Bullets(items=absent)] if absent else []
    return Section(title="Attention", blocks=blocks)


def run_sections(groups: Sequence[Group]) -> list[Section]:
    """A section for each run that stored its metrics by layer and head."""
    sections = []
    for group in groups:
        for run in group.runs:
            probes = probes_of(run)
            if isinstance(probes, Probes) and any(name in probes.values for name in DIAGNOSTICS):
                blocks = [
                    _by_layer(run, probes),
                    _by_head(run, probes),
                    *_stored_map(run, probes),
                    *_alarms(run, probes),
                ]
                sections.append(Section(title=f"Attention of {run.id}", blocks=blocks))
    return sections


def _last_probes(runs: Sequence[Reported], means: Means) -> Table:
    """Means over layers and heads at each run's last probe."""
    rows = []
    shown = [m for m in DIAGNOSTICS if any(len(known_values(means[run.id][m], m)) for run in runs)]
    for run in runs:
        frames = {m: means[run.id][m].dropna() for m in shown}
        last = max(int(f["step"].iloc[-1]) for f in frames.values() if len(f))
        at_last = [
            float(f[m].iloc[-1]) if len(f) and int(f["step"].iloc[-1]) == last else None for m, f in frames.items()
        ]
        rows.append([run.id, numbers.steps(last), *map(numbers.scalar, at_last)])
    return Table(
        name="attention",
        caption="Attention at the last probe, means over layers and heads: "
        f"{', '.join(_titled(m)[0].lower() + _titled(m)[1:] for m in shown)}.",
        header=["run", "step", *(METRICS[m].label for m in shown)],
        rows=rows,
        right=[False, *[True] * (len(shown) + 1)],
        notes=[f"{METRICS[m].label}: {METRICS[m].definition}" for m in shown],
    )


def _overlays(groups: Sequence[Group], means: Means) -> Picture:
    """The means of all runs over each other, a figure a metric."""
    cells: list[go.Figure | None] = []
    for metric in DIAGNOSTICS:
        having = []
        for group in groups:
            runs = tuple(replace(run, frames={**run.frames, "means": means[run.id][metric]}) for run in group.runs)
            if any(len(known_values(run.frames["means"], metric)) for run in runs):
                having.append(replace(group, runs=runs))
        if having:
            options = {"height": _OVERLAY_HEIGHT, "format": numbers.scalar}
            cells.append(overlay(having, "means", metric, _STEPS, title=_titled(metric), **options))
    if len(cells) % 2 and len(cells) > 1:
        cells.append(None)
    rows = [cells[i : i + 2] for i in range(0, len(cells), 2)]
    title = "Attention over training, means over layers and heads"
    sheet = Sheet(name="attention", title=title, rows=rows, widths=[_OVERLAY_WIDTH] * min(2, len(cells)))
    names = [group.label for group in groups if any(_measured(means[run.id]) for run in group.runs)]
    return Picture(sheet=sheet, caption=f"{title}: {listed(names)}.")


def _by_layer(run: Reported, probes: Probes) -> Picture:
    """Each metric over steps, a line a layer, beside the last probe's map of layers and heads."""
    rows = []
    last = numbers.steps(int(probes.steps[-1]))
    for metric in (m for m in DIAGNOSTICS if m in probes.values):
        values = probes.values[metric]
        titles = {"title": f"{_titled(metric)}, mean over heads", "baseline": probes.uniform(metric)}
        lines = layer_lines(probes.steps, values, View(), height=_ROW_HEIGHT, **titles)
        cells = head_map(
            values[-1], title=f"{METRICS[metric].label}, step {last}", unit=METRICS[metric].unit, height=_ROW_HEIGHT
        )
        rows.append([lines, cells])
    sheet = Sheet(
        name=f"layers-{run.id}",
        title=f"{run.id}: attention by layer and head",
        rows=rows,
        widths=[_LINES_WIDTH, _MAP_WIDTH],
    )
    caption = f"{run.id}: left, means over the heads of each layer; dashed, what uniform attention would measure. "
    return Picture(sheet=sheet, caption=caption + f"Right, every head at step {last}. White: not measured.")


def _by_head(run: Reported, probes: Probes) -> Picture:
    """Each head over steps: a row a metric, a column a layer."""
    shown = [m for m in DIAGNOSTICS if m in probes.values]
    count = max(probes.values[m].shape[1] for m in shown)
    known = [i for i in range(count) if any(np.isfinite(probes.values[m][:, i]).any() for m in shown)]
    layers = [known[i] for i in _chosen(len(known))]
    rows = []
    for metric in shown:
        values = probes.values[metric]
        limits = _limits(values[:, layers])
        measured = [i for i in layers if np.isfinite(values[:, i]).any()]
        cells: list[go.Figure | None] = []
        for layer in layers:
            if layer not in measured:
                cells.append(None)
                continue
            heads = np.flatnonzero(np.isfinite(values[:, layer]).any(axis=0))
            only = f", head {heads[0]}" if len(heads) == 1 else ""
            title = f"{METRICS[metric].label}, layer {layer}{only}"
            figure = head_lines(probes.steps, values, layer, View(), title=title, height=_HEADS_HEIGHT)
            if len(probes.steps) > 1:
                figure.update_traces(mode="lines", line_width=1.4)
            figure.update_yaxes(range=limits, title_text=METRICS[metric].unit if layer == measured[0] else "")
            cells.append(figure if layer == measured[-1] else _without_bar(figure))
        rows.append(cells)
    widths = [_HEADS_WIDTH] * (len(layers) - 1) + [_HEADS_WIDTH + 70]
    sheet = Sheet(name=f"heads-{run.id}", title=f"{run.id}: every head over training", rows=rows, widths=widths)
    which = "all layers" if len(layers) == count else f"layers {listed([str(i) for i in layers])} of {count}"
    caption = f"{run.id}: every head over training, {which}. The figures of a row share their vertical axis."
    return Picture(sheet=sheet, caption=caption)


def _stored_map(run: Reported, probes: Probes) -> list[Block]:
    """The last map of the deepest head that has one."""
    if not probes.mapped:
        return [Paragraph(text=f"{run.id} stored no attention map.")]
    deepest = max(layer for layer, _ in probes.mapped)
    head = next(head for head in probes.mapped if head[0] == deepest)
    weights = map_of(run, head)
    if weights is None:
        return [Paragraph(text=f"The stored attention maps of {run.id} cannot be read.")]
    step = numbers.steps(int(probes.steps[-1]))
    where = f"layer {head[0]}, head {head[1]}, step {step}"
    figure = attention_map_figure(
        weights,
        Tokens(texts=[""] * len(weights), start=0, stop=len(weights)),
        title=html_text(f"{run.id}: {where}", 80),
        nulls=null_shares(weights),
        log=True,
        labels=_STORED_LABELS,
        height=_STORED_HEIGHT,
    )
    figure.update_layout(margin_b=_STORED_BOTTOM)  # positions take less room than the tokens of the page
    sheet = Sheet(
        name=f"map-{run.id}", title=f"{run.id}: attention map of {where}", rows=[[figure]], widths=[_STORED_WIDTH]
    )
    null = " Grey bars: the share of the null key, which has no column." if null_shares(weights) is not None else ""
    caption = f"{run.id}: attention weights of {where}, of one probe window; colours are logarithmic."
    return [Picture(sheet=sheet, caption=caption + null)]


def _alarms(run: Reported, probes: Probes) -> list[Block]:
    """What is worth a second look, in words."""
    alarms = probes.alarms()
    if not alarms:
        return [Paragraph(text=f"Nothing in the last probe of {run.id} passes a level that asks for a second look.")]
    items = [f"{alarm.sentence}." for alarm in alarms[:_MOST_ALARMS]]
    if len(alarms) > _MOST_ALARMS:
        items.append(f"And {len(alarms) - _MOST_ALARMS} more.")
    return [Paragraph(text=f"Worth a second look in the last probe of {run.id}:"), Bullets(items=items)]


def _titled(metric: str) -> str:
    """`Entropy (nats)`."""
    return f"{METRICS[metric].label} ({METRICS[metric].unit})"


def _chosen(count: int) -> list[int]:
    """All of so many layers, or evenly from the first to the last."""
    if count <= _MOST_LAYERS:
        return list(range(count))
    return [round(i * (count - 1) / (_MOST_LAYERS - 1)) for i in range(_MOST_LAYERS)]


def _limits(values: np.ndarray) -> list[float]:
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    air = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return [max(low - air, 0.0) if low >= 0 else low - air, high + air]


def _without_bar(figure: go.Figure) -> go.Figure:
    """Beside others of its kind: the last one tells the heads' colours."""
    traces: Any = figure.data
    kept = [trace for trace in traces if not trace.marker.showscale]
    if len(kept) == len(traces):
        return figure
    return go.Figure(kept, figure.layout.update(margin={"r": 12}))


def _measured(means: Mapping[str, pd.DataFrame]) -> bool:
    return any(len(known_values(frame, metric)) for metric, frame in means.items())

"""The sections on what runs reached: each run, the table of results, loss against KV bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from bottleneck_core.figures import numbers
from bottleneck_core.figures.quantities import RunPoint
from bottleneck_core.figures.results import FORMATS, results_frame, written_rows
from bottleneck_core.figures.scatter import CACHE, LOSS, pareto, scatter_figure
from bottleneck_core.figures.static_sheet import Sheet

from .document import Block, Bullets, Paragraph, Picture, Section, Table, listed
from .groups import Group
from .reported import KV_BYTES, QUALITY, Reported, cache_quantity, context_words

# What decides whether losses are about the same text.
_TEXT = ("data", "tokenizer", "vocab_size", "val_frac")
# Runs that differ by less in tokens were trained equally long.
_SAME_TOKENS = 0.01
# The width that the figure places its names for.
_SCATTER_WIDTH, _SCATTER_HEIGHT = 620, 400

_NOTES = {
    "best loss": "best loss: least validation loss, nats per token; of several seeds the mean over them",
    "± 95 %": "± 95 %: half width of the 95 % interval of that mean, from Student's t",
    "Δ loss": "Δ loss: best loss above that of the first line",
    "Δ 95 %": "Δ 95 %: 95 % interval of that difference, by Welch",
    "difference": "difference: what Welch's two-sided t-test at 5 % says; it needs two seeds on either side",
    "ppl": "ppl: exp of the best loss",
    "tok/s": "tok/s: median of the last 20 logged rows",
    "time": "time: of training, interruptions taken out",
}


def runs_section(groups: Sequence[Group]) -> Section:
    """What each run is and where its curves end: one line a run."""
    runs = [run for group in groups for run in group.runs]
    columns: dict[str, tuple[bool, Callable[[Reported], str]]] = {
        "run": (False, lambda run: run.id),
        "status": (False, lambda run: run.status),
        "attention": (False, lambda run: str(run.config.get("attn_mode") or numbers.MISSING)),
        "size": (False, lambda run: str(run.config.get("size") or numbers.MISSING)),
        "seed": (True, lambda run: _word(run.config.get("seed"))),
        "last step": (True, lambda run: numbers.steps(run.run.last_step)),
        "best val loss": (True, lambda run: numbers.loss(run.values[LOSS])),
        "at step": (True, lambda run: numbers.steps(run.run.best_val_step)),
        "last val loss": (True, lambda run: numbers.loss(run.last("eval", "val_loss"))),
        "last train loss": (True, lambda run: numbers.loss(run.last("train", "loss"))),
    }
    blocks: list[Block] = [
        Table(
            name="runs",
            caption="The runs. Losses are in nats per token.",
            header=list(columns),
            rows=[[cell(run) for _, cell in columns.values()] for run in runs],
            right=[number for number, _ in columns.values()],
        )
    ]
    together = [group for group in groups if len(group.runs) > 1]
    if together:
        blocks.append(Paragraph(text="Runs that differ in the seed alone are put together below:"))
        blocks.append(
            Bullets(items=[f"{group.label}: {listed([run.id for run in group.runs], 100)}." for group in together])
        )
    return Section(title="Runs", blocks=blocks)


def results_section(groups: Sequence[Group], context: int) -> Section:
    """Quality and cost, each line against the first."""
    # The table's column has a fixed name; which context it is of is said in the header.
    sides = [
        replace(side, values={**side.values, "kv_bytes_128k": side.values[KV_BYTES]})
        for side in (group.side() for group in groups)
    ]
    frame = results_frame(sides)
    if all(side.runs == 1 for side in sides):  # it would say on each line that one seed says nothing
        frame = frame.drop(columns="difference", errors="ignore")
    at = context_words(context)
    header = [f"KV @{at}" if name == "KV @128k" else str(name) for name in frame]
    notes = [text for name, text in _NOTES.items() if name in frame]
    if "KV per token" in frame:
        notes.append(f"KV @{at}: cache of one request of {context:,} tokens under the run's own cache policy")
        notes.append("KV per token: that size divided by its tokens")
    table = Table(
        name="results",
        caption=f"Results. Losses are in nats per token; KV bytes are at {context:,} tokens, batch 1.",
        header=header,
        rows=written_rows(frame),
        right=[name in FORMATS for name in frame],
        notes=notes,
    )
    blocks: list[Block] = [table]
    remarks = cautions([run for group in groups for run in group.runs])
    if len(groups) > 1 and all(len(group.runs) == 1 for group in groups):
        remarks.append("Each line is a single run, one seed: how much of a difference is noise is not known.")
    if "Δ 95 %" in frame and len(groups) > 2:
        remarks.append("The p-values are not corrected for several comparisons with the same first line.")
    if remarks:
        blocks += [Paragraph(text="Before comparing:"), Bullets(items=remarks)]
    return Section(title="Results", blocks=blocks)


def quality_section(groups: Sequence[Group], context: int) -> Section:
    """Validation loss against KV bytes per token, with the frontier."""
    points = [group.point() for group in groups]
    cache = cache_quantity(context)
    shown = [p for p in points if QUALITY.known(p.values.get(LOSS)) and cache.known(p.values.get(CACHE))]
    blocks: list[Block] = []
    if shown:
        figure = scatter_figure(points, cache, QUALITY, height=_SCATTER_HEIGHT)
        sheet = Sheet(name="loss-against-kv", title="Loss against KV bytes", rows=[[figure]], widths=[_SCATTER_WIDTH])
        spread = (
            " Bars reach from the least to the greatest of a group's seeds." if any(p.spread for p in points) else ""
        )
        blocks.append(
            Picture(
                sheet=sheet,
                caption=f"Best validation loss against KV bytes per token at {context:,} tokens (log scale): "
                f"{listed([p.name for p in shown])}.{spread}",
            )
        )
        if unnamed := _unnamed(figure, points):
            words = "; ".join(_at(point) for point in unnamed)
            blocks.append(Paragraph(text=f"Without their names in the figure, for want of room: {words}."))
        best = pareto(points)
        if len(shown) > 1:
            words = "; ".join(_at(point) for point in best)
            blocks.append(
                Paragraph(text=f"On the frontier, where no other line is better in both, by growing cache: {words}.")
            )
        else:
            blocks.append(Paragraph(text=f"With {shown[0].name} alone there is no frontier."))
    absent = [p.name for p in points if p not in shown]
    if absent:
        blocks.append(Paragraph(text=f"Without both a validation loss and a sized cache: {listed(absent)}."))
    return Section(title="Loss against KV bytes", blocks=blocks)


def cautions(runs: Sequence[Reported]) -> list[str]:
    """What to know before losses are compared, one sentence each."""
    found = []
    text = [name for name in _TEXT if len({str(r.config[name]) for r in runs if r.config.get(name) is not None}) > 1]
    if text:
        found.append(f"The runs differ in {', '.join(text)}: their losses need not be about the same text.")
    tokens = [(seen, run.id) for run in runs if (seen := run.values["tokens"])]
    if tokens and max(tokens)[0] > (1 + _SAME_TOKENS) * min(tokens)[0]:
        (least, first), (most, last) = min(tokens), max(tokens)
        found.append(
            f"The runs saw between {numbers.count(least)} ({first}) and {numbers.count(most)} ({last}) tokens: a loss "
            "compares what was reached, not what equal training gives."
        )
    unfinished = [run.id for run in runs if run.status != "done"]
    if unfinished:
        found.append(f"Not trained to their end: {listed(unfinished)}.")
    return found


def _unnamed(figure: go.Figure, points: Sequence[RunPoint]) -> list[RunPoint]:
    """The points that the figure found no place to name."""
    runs: Any = figure.data[-1]
    return [points[row[0]] for row, text in zip(runs.customdata, runs.text, strict=True) if not text]


def _at(point: RunPoint) -> str:
    """`name (3.1207 at 2.25 KiB per token)`."""
    return f"{point.name} ({numbers.loss(point.values[LOSS])} at {numbers.size(point.values[CACHE])} per token)"


def _word(value: object) -> str:
    known = isinstance(value, (int, float)) and math.isfinite(value)
    return f"{value}" if known else numbers.MISSING

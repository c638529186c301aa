"""The stored attention map of a head and its singular values, of one run or of two beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from bottleneck_core.figures.maps import MOST_CELLS, MOST_LABELS, Tokens, attention_map_figure, magnitude, null_shares
from bottleneck_core.figures.spectra import Spectrum, spectra_figure
from bottleneck_core.store.analysis_foreign import effective_rank
from dashboard.attention import playback as attention_playback
from dashboard.attention.data import Head, Probed, map_of, spectra_of, values_of
from dashboard.attention.view import DRAWN, Side, choose_head, plain, titled
from dashboard.live_chart import Drawn, live_chart
from dashboard.markdown import escaped
from dashboard.theme import theme

# While playing, a map is sent at each frame: a quarter of the cells is enough to see it move.
_PLAYED_CELLS = 128
# Of the earlier spectra so many are drawn, evenly spaced.
_EARLIER = 8
_PARTS = {"Weights": None, "Semantic logits": "sem", "Geometric logits": "geo"}


def maps(sides: Sequence[Side], head: Head) -> None:
    """The maps of a head with their switches; where there is none, the heads that have one."""
    having = [side for side in sides if head in side.run.mapped]
    if not having:
        _offer(sides[0].run, head)
        return
    part, log, window = _switches(having)
    shown: list[tuple[Side, NDArray[np.float32], int]] = []
    for side in having:
        try:
            values, probe = map_of(side.run, head, side.probe, part if part in side.run.parts else None)
            shown.append((side, values, int(side.run.steps[probe])))
        except bc.UserError as error:
            st.warning(f"{escaped(str(error))}.")
    signed = part is not None
    limit = max((magnitude(np.tril(values)) for _, values, _ in shown), default=1.0)
    for (side, values, step), column in zip(shown, st.columns(max(1, len(shown)), gap="medium"), strict=False):
        size = len(values)
        start, stop = (0, size) if window is None or window[0] >= size else (window[0], min(window[1], size))
        labels = side.run.labels if side.run.labels and len(side.run.labels) >= size else [""] * size
        what = "logits" if signed else "weights"
        options: dict[str, Any] = {
            "title": titled(side, sides, f"attention {what} of layer {head[0]} head {head[1]}, step {step:,}"),
            "signed": signed,
            "log": log,
            "limit": limit,
            "cells": _PLAYED_CELLS if attention_playback.playing() else MOST_CELLS,
            "labels": MOST_LABELS // len(shown),
            "theme": theme(),
        }
        key = ("map", side.mark, head, part, start, stop, *options.values())
        figure = DRAWN.get(key, partial(_drawn, values, Tokens(texts=labels, start=start, stop=stop), options))
        with column:
            name = f"map-{sides.index(side)}"
            # Zoom is in positions of this window.
            live_chart(figure, name=name, group=f"{side.run.path}/{name}/{start}-{stop}")
    for side in sides:
        if side not in having:
            others = ", ".join(f"layer {layer} head {number}" for layer, number in side.run.mapped) or "none"
            st.caption(f"{escaped(side.run.id)} stored no map of this head; it has: {others}.")
    for side, _, step in shown:
        if step != side.step:
            st.caption(
                f"{escaped(side.run.id)} stored no map at step {side.step:,}: this is the nearest, step {step:,}."
            )
    _explain(having, nulls=not signed and any(null_shares(values) is not None for _, values, _ in shown))


def _drawn(values: NDArray[np.float32], tokens: Tokens, options: dict[str, Any]) -> Drawn:
    nulls = None if options["signed"] else null_shares(values)
    return Drawn.of(attention_map_figure(values, tokens, nulls=nulls, height=640, **options))


def spectra(sides: Sequence[Side], head: Head) -> None:
    """Singular values at the step shown, some of the earlier ones faint, and the effective rank in words."""
    found, sentences = [], []
    for side in sides:
        if head not in side.run.spectral:
            continue
        earlier = np.unique(np.linspace(0, side.probe, _EARLIER + 1).astype(int))
        try:
            values = spectra_of(side.run, head, earlier.tolist())
        except bc.UserError as error:
            st.warning(f"{escaped(str(error))}.")
            continue
        steps = side.run.steps[earlier].tolist()
        found.append(Spectrum(name=plain(side.run.id), color=side.color, steps=steps, values=values))
        rank = _rank(side, head, values[-1])
        name = f"{escaped(side.run.id)}: " if len(sides) > 1 else ""
        sentences.append(f"{name}effective rank **{numbers.scalar(rank)}** of {values.shape[1]} at step {side.step:,}")
    if not found:
        st.caption(f"No singular values are stored for layer {head[0]} head {head[1]}.")
        return
    key = ("spectra", tuple(side.mark for side in sides), head, len(found), theme())
    figure = DRAWN.get(key, lambda: Drawn.of(spectra_figure(found, title="Singular values of the map", theme=theme())))
    live_chart(figure, name="spectra", group=f"{sides[0].run.path}/spectra")
    st.markdown("  \n".join(sentences), help=bc.METRICS["erank"].definition)


def _switches(sides: Sequence[Side]) -> tuple[str | None, bool, tuple[int, int] | None]:
    """What is shown, whether colours are logarithmic, and which tokens (None: all)."""
    parts = [name for name, part in _PARTS.items() if part is None or any(part in side.run.parts for side in sides)]
    size = max((side.run.tokens or 0 for side in sides), default=0)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        name = "Weights"
        if len(parts) > 1:
            name = st.segmented_control(
                "Shown", parts, default="Weights", required=True, key="shown", bind="query-params"
            )
        part = _PARTS[name or "Weights"]
        log = st.toggle(
            "log colours",
            value=True,
            # Its own name: "log" is the log axis of a run, and Streamlit takes a value of that name along.
            key="log_colours",
            bind="query-params",
            disabled=part is not None,
            help="Colours by the logarithm of the weight, from 0.0001 to 1; otherwise in proportion.",
        )
        window = None
        if size > 2:
            window = st.slider(
                "Tokens",
                0,
                size,
                (0, size),
                key="tokens",
                bind="query-params",
                width=260,
                help="The part of the window that is drawn: queries and keys from the first to before the second.",
            )
    return part, log, window if window and window[1] > window[0] else None


def _offer(run: Probed, head: Head) -> None:
    """That this head has no map, and those that have."""
    if not run.mapped:
        st.info("This run stored no attention maps: `--instrument full` stores those of the analysed layers and heads.")
        return
    st.info(f"No map is stored for layer {head[0]} head {head[1]}. These heads have one:")
    with st.container(horizontal=True, gap="small"):
        for layer, number in run.mapped:
            st.button(f"layer {layer} head {number}", on_click=choose_head, args=(layer, number))


def _explain(sides: Sequence[Side], *, nulls: bool) -> None:
    run = sides[0].run
    words = ["Probe window 0, query by key."]
    if run.labels is None:
        words.append(
            f"The vocabulary of the {escaped(run.tokenizer)} tokenizer is not at hand: positions stand for tokens."
            if run.tokenizer and any(side.run.tokens for side in sides) and run.tokenizer not in ("byte", "gpt2")
            else "The file does not hold the window's tokens: positions stand for them."
        )
    if nulls:
        words.append("What a row lacks to 1 is the null key's share, the bar at the right.")
    st.caption(" ".join(words))


def _rank(side: Side, head: Head, values: Any) -> float:
    """The recorded mean over windows; of a file without it, that of the stored values."""
    if "erank" in side.run.metrics:
        recorded = float(values_of(side.run, "erank")[side.probe][head])
        if np.isfinite(recorded):
            return recorded
    return effective_rank(np.nan_to_num(values.astype(np.float64)))

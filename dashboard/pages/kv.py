"""The KV calculator: what a cache takes, in which format, at which length, and what fits a card."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from bottleneck_core.figures.kv import SizeLine, size_figure
from bottleneck_core.figures.kv_parts import Bar, Segment, breakdown_figure
from bottleneck_core.memory import GPUS
from dashboard.kv import result as kv_result
from dashboard.kv.address import edited, keep, key, seed, start_from
from dashboard.kv.card import Answered, card, color_of
from dashboard.kv.result import Result
from dashboard.kv.scenario import LETTERS, View, with_scenario
from dashboard.kv.workload import workload
from dashboard.live_chart import live_chart, load_plotly
from dashboard.markdown import escaped
from dashboard.theme import theme


def cards(view: View) -> tuple[list[Answered], DeltaGenerator, DeltaGenerator]:
    """The scenarios side by side; where the exports go, and the curve: beside a single scenario, else below all."""
    count = len(view.scenarios)
    columns = st.columns([1, 2] if count == 1 else count, gap="medium")
    answered = []
    for letter, column in zip(LETTERS[:count], columns, strict=False):
        with column:
            answered.append(card(letter, view, removable=count > 1))
    with columns[0] if count == 1 else st.container():
        actions = st.container(horizontal=True, gap="small")
    if count < len(LETTERS):
        actions.button(
            f"Scenario {LETTERS[count].upper()}",
            icon=":material/add:",
            key=key("add"),
            help="One more beside it, which starts as the last one.",
            on_click=start_from,
            args=(with_scenario,),
        )
    return answered, actions, columns[1] if count == 1 else st.container()


def curve(results: list[Result], view: View, height: int) -> None:
    lines = [
        SizeLine(name=r.title, color=color_of(r.letter), tokens=r.contexts, bytes=r.curve)
        for r in results
        if any(r.curve)
    ]
    devices = GPUS | {view.card: kv_result.card_bytes(view.card)}
    figure = size_figure(lines, context=view.context, devices=devices, chosen=view.card, theme=theme(), height=height)
    live_chart(figure, name="sizes", group="kv")


def breakdown(results: list[Result], view: View) -> View:
    """What the caches are made of: chart and table, by tensors or by types of layers."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        by = st.segmented_control(
            "Parts",
            ("tensors", "layers"),
            default=view.by,
            required=True,
            format_func={"tensors": "Tensors", "layers": "Layer types"}.__getitem__,
            key=key("by"),
            on_change=edited,
            label_visibility="collapsed",
        )
        shares = st.toggle("as shares", view.shares, key=key("shares"), on_change=edited)
    view = replace(view, by=by or view.by, shares=shares)
    bars = []
    for r in results:
        parts = r.tensors if view.by == "tensors" else r.layer_types
        names = list(dict.fromkeys(part.name for part in parts))
        segments = [
            Segment(
                name=" ".join(filter(None, (part.name, part.kind))),
                detail=f"{part.layer_type}, layers: {part.layers}, tokens kept: {part.tokens:,}",
                bytes=part.bytes,
                shade=names.index(part.name),
            )
            for part in parts
        ]
        bars.append(Bar(name=r.title, color=color_of(r.letter), segments=segments))
    title = f"{'tensors' if view.by == 'tensors' else 'layer types'} at {view.context:,} tokens, batch {view.batch:,}"
    left, right = st.columns([1, 2], gap="medium")
    with left:
        figure = breakdown_figure(bars, title=title, shares=view.shares, theme=theme())
        live_chart(figure, name="parts", group=f"kv-{view.by}-{view.shares}")
    with right:
        number = st.column_config.NumberColumn(format="localized")
        st.dataframe(
            kv_result.part_rows(results, view.by),
            hide_index=True,
            height="content",
            column_config=dict.fromkeys(("values", "bytes a row", "tokens kept", "bytes"), number),
        )
    return view


def totals(results: list[Result]) -> None:
    st.dataframe(kv_result.total_rows(results), hide_index=True)


def derivation(results: list[Result]) -> None:
    with st.expander("Derivation: every sum, to be checked with a pocket calculator"):
        for r in results:
            st.markdown(f"**{escaped(r.title)}**")
            st.code("\n".join(r.size.derivation), language=None, wrap_lines=True)


def export(place: DeltaGenerator, answered: list[Answered], results: list[Result], query: dict[str, str]) -> None:
    fits = {a.result.letter: a.fit for a in answered if a.result and a.fit}
    with place:
        with st.popover("Link", icon=":material/link:"):
            st.code(f"{st.context.url or ''}?{urlencode(query)}", language=None, wrap_lines=True)
        st.download_button(
            "CSV",
            lambda: kv_result.as_csv(results),
            "kv.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            help="Bytes over the context, a column a scenario.",
        )
        st.download_button(
            "JSON",
            lambda: kv_result.as_json(results, fits, query),
            "kv.json",
            "application/json",
            icon=":material/download:",
            on_click="ignore",
            help="Everything on this page, numbers exact.",
        )


def page() -> None:
    start, problems = seed()
    if problems:
        st.warning("\n\n".join(escaped(f"{sentence}.") for sentence in problems))
    view = workload(start)
    answered, actions, place = cards(view)
    view = replace(view, scenarios=tuple(a.scenario for a in answered))
    results = [a.result for a in answered if a.result]
    with place:
        curve(results, view, 560 if len(answered) == 1 else 420)
    if results:
        view = breakdown(results, view)
        totals(results)
        derivation(results)
    query = keep(view)
    if results:
        export(actions, answered, results, query)


load_plotly()
page()

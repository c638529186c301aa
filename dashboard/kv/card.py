"""One scenario: its answer on top, its model and storage below."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from bottleneck_core.errors import UserError
from bottleneck_core.figures import numbers
from bottleneck_core.figures.palette import categorical
from dashboard.access import may_change, why_not
from dashboard.kv.address import key, start_from
from dashboard.kv.form import params_form, source_form, storage_form
from dashboard.kv.measure import measure, measured, request_of, unmeasurable
from dashboard.kv.models import model_behind
from dashboard.kv.result import Fit, Result, fit_of, fit_sentence, per_token, result_of
from dashboard.kv.scenario import LETTERS, Scenario, View, without_scenario
from dashboard.markdown import escaped
from dashboard.theme import theme


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What the reader chose and what comes out of it; `result` None where a sentence in the card says why not."""

    scenario: Scenario
    result: Result | None = None
    fit: Fit | None = None


def color_of(letter: str) -> str:
    """The colour of a scenario on this page."""
    return categorical(len(LETTERS), theme())[LETTERS.index(letter)]


def card(letter: str, view: View, *, removable: bool) -> Answered:
    """Draws the scenario of that letter, started from the one in `view`."""
    before = view.scenarios[LETTERS.index(letter)]
    with st.container(border=True, height="stretch"):
        head = st.container(horizontal=True, vertical_alignment="center", gap="small")
        answer = st.container(gap=None)
        source = before.source
        try:
            source = source_form(letter, before.source)
            model = model_behind(source)
            # Formats stay when the model changes; where the source has its own, the fields start from those.
            start = before.policy if before.policy is not None and source.kind == before.source.kind else model.own
            policy = storage_form(letter, model, source, start)
            params = params_form(letter, before.params) if model.params is None else None
            scenario = Scenario(source=source, policy=policy, params=params)
            result = result_of(letter, model, policy or model.own, view)
        except UserError as error:
            _head(head, letter, "no model yet", removable)
            with answer:
                (st.info if source.kind == "config" and not source.name else st.error)(escaped(str(error)))
            return Answered(scenario=Scenario(source=source, policy=before.policy, params=before.params))
        _head(head, letter, model.title, removable)
        with answer:
            _answer(result)
        fit = _fit(result, view, params)
    return Answered(scenario=scenario, result=result, fit=fit)


def _head(place, letter: str, title: str, removable: bool) -> None:
    with place:
        # A colour and a letter of ours: nothing in it comes from elsewhere.
        st.html(f'<b style="color:{color_of(letter)};font-size:1.25rem">{letter.upper()}</b>', width="content")
        st.markdown(f"**{escaped(title)}**", width="stretch")
        if removable:
            st.button(
                "",
                icon=":material/close:",
                type="tertiary",
                key=key(letter, "remove"),
                help=f"Remove scenario {letter.upper()}",
                on_click=start_from,
                args=(without_scenario, LETTERS.index(letter)),
            )


def _answer(result: Result) -> None:
    size = result.size
    standard = "the same model in fp16" if result.model.public else "standard attention in fp16"
    with st.container(horizontal=True, gap="medium"):
        st.metric(
            "KV cache",
            numbers.size(size.bytes),
            help=f"{numbers.exact_size(size.bytes)} at {size.context:,} tokens, batch {size.batch:,}.",
            width="content",
        )
        st.metric(
            "against fp16" if result.model.public else "against fp16 standard",
            numbers.ratio(size.compression),
            help=f"{standard} takes {numbers.exact_size(size.baseline_fp16_bytes)}.".capitalize(),
            width="content",
        )
    st.caption(escaped(per_token(size)))
    # A row of one height for badge and button: the fields of neighbours stay in line.
    with st.container(horizontal=True, vertical_alignment="center", height=40, border=False):
        _measured(result)


def _measured(result: Result) -> None:
    """The badge, or the button that earns it."""
    size = result.size
    reason = unmeasurable(result.model, result.policy, size.bytes)
    if reason:
        st.badge("counted, not measured", color="gray", help=reason)
        return
    request = request_of(result.model, result.policy, size.context, size.batch)
    place = st.empty()
    allowed = may_change()  # it starts a process
    asked = request not in measured() and place.button(
        "Measure",
        icon=":material/straighten:",
        key=key(result.letter, "measure"),
        type="tertiary",
        disabled=not allowed,
        help="Fills a real cache on the CPU and counts its bytes." if allowed else why_not(),
    )
    # A click may still come from a page that was drawn while it was allowed.
    if asked and allowed:
        try:
            with place, st.spinner("Filling a cache"):
                measure(request)
        except UserError as error:
            place.error(escaped(str(error)))
    found = measured().get(request)
    if found == size.bytes:
        place.badge(
            "measured: allocation agrees",
            icon=":material/check:",
            color="green",
            help=f"A cache of ours, filled on the CPU, took {numbers.exact_size(found)}.",
        )
    elif found is not None:
        place.error(f"A real cache took {numbers.exact_size(found)}: the calculator is wrong here.")


def _fit(result: Result, view: View, params: int | None) -> Fit | None:
    try:
        fit = fit_of(result, view, params)
    except UserError as error:
        st.caption(escaped(str(error)))
        return None
    lines = "\n\n".join(escaped(line) for line in fit.budget.lines())
    st.markdown(fit_sentence(fit, view), help=lines)
    return fit
